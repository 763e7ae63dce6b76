//! Services without a selector: EndpointSlices list their endpoints, and without a slice nothing is
//! sent to them.

use std::process::ExitCode;

use ambit_tests::{
    Capture, Family, Lab, LabServer, Mode, Reference, SOON, eventually, get, run_tests, tests,
};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

const PORT: u16 = Reference::PORT;

const SLICES: &str = "slices.yaml";

fn main() -> ExitCode {
    run_tests(tests![
        pods_behind_a_hand_made_slice_are_reached_through_a_tunnel,
        a_service_without_known_endpoints_is_refused,
    ])
}

fn pods_behind_a_hand_made_slice_are_reached_through_a_tunnel(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    // Plaintext would be answered.
    lab.manifests().remove(Reference::POLICIES_FILE)?;
    write_service(lab, &mesh)?;
    write_slices(lab, &mesh)?;
    let _agents = lab.start_agents()?;
    let server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    let capture = Capture::start(lab)?;
    for family in Family::ALL {
        let reply = get(mesh.frontend.place(), &url(&mesh, family))?;
        ensure!(reply.is_answer(), "{family:?}: {reply:?}");
    }
    ensure!(server.connections().len() == 2);
    ensure!(
        !capture.finish()?.contains(b"GET /secret"),
        "plaintext between two pods of the mesh"
    );
    Ok(())
}

fn a_service_without_known_endpoints_is_refused(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    lab.manifests().remove(Reference::POLICIES_FILE)?;
    write_service(lab, &mesh)?;
    let [agent, _other] = lab.start_agents()?;
    let server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    let refused = |why: &str| -> Result<()> {
        for family in Family::ALL {
            let reply = get(mesh.frontend.place(), &url(&mesh, family))?;
            ensure!(reply.is_refusal(), "{why}, {family:?}: {reply:?}");
        }
        ensure!(server.connections().is_empty(), "{why}: it was called");
        Ok(())
    };
    let capture = Capture::start(lab)?;
    refused("no slice")?;
    ensure!(agent.refused("no-endpoints-known")? >= 2);
    let faults = agent.ask("status")?["faults"].to_string();
    ensure!(faults.contains("Service orders/orders"), "{faults}");

    // An address of the pods' range that no object has.
    let unknown = slice("IPv4", "10.78.2.250");
    lab.manifests().write_object(SLICES, &unknown)?;
    eventually(SOON, "the slice is known", || {
        let reply = get(mesh.frontend.place(), &url(&mesh, Family::V4)).ok()?;
        assert!(reply.is_refusal(), "{reply:?}");
        (agent.refused("unknown-endpoint").ok()? > 0).then_some(())
    })?;
    refused("an unknown endpoint")?;
    ensure!(!capture.finish()?.contains(b"GET /secret"));

    write_slices(lab, &mesh)?;
    eventually(SOON, "an answer", || {
        let reply = get(mesh.frontend.place(), &url(&mesh, Family::V4)).ok()?;
        reply.is_answer().then_some(())
    })
}

fn url(mesh: &Reference, family: Family) -> String {
    match mesh.orders_service.ip(family) {
        std::net::IpAddr::V4(v4) => format!("http://{v4}/secret"),
        std::net::IpAddr::V6(v6) => format!("http://[{v6}]/secret"),
    }
}

/// The Service of `orders`, without its selector.
fn write_service(lab: &Lab, mesh: &Reference) -> Result<()> {
    let mut service = mesh.orders_service.manifest();
    if let Some(spec) = service["spec"].as_object_mut() {
        spec.remove("selector");
    }
    lab.manifests()
        .write_object(&mesh.orders_service.file_name(), &service)
}

/// A slice for each family, as people would write them by hand.
fn write_slices(lab: &Lab, mesh: &Reference) -> Result<()> {
    let [v4, v6] = Family::ALL.map(|family| mesh.orders.ip(family).to_string());
    let slices = json!({
        "apiVersion": "v1",
        "kind": "List",
        "items": [slice("IPv4", &v4), slice("IPv6", &v6)],
    });
    lab.manifests().write_object(SLICES, &slices)
}

fn slice(family: &str, address: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "orders",
            "name": format!("orders-{}", family.to_lowercase()),
            "labels": {"kubernetes.io/service-name": "orders"},
        },
        "addressType": family,
        "endpoints": [{"addresses": [address]}],
        "ports": [{"port": PORT}],
    })
}
