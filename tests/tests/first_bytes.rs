//! The first bytes of a connection travel with its CONNECT: over a link with a delay, a new connection gets its answer
//! sooner than without a mesh. They are held at the destination until the verdict, and a denied connection's never reach
//! the application.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use ambit_tests::{
    Claim, Connections, Family, HboneCall, HboneReply, Lab, Link, Membership, NodeName, Pod,
    PodSpec, Pulse, Rate, ReaderOrder, Readers, Reading, SOON, SameNode, Service, Site, Source,
    Timing, TunnelData, eventually, run_tests, tests,
};
use anyhow::{Context, Result, ensure};
use serde_json::json;

const PORT: u16 = 8090;

const HBONE_PORT: u16 = 15008;

/// The delay, and not the processor, decides how long a call takes.
const FAR: Link = Link {
    delay: Duration::from_millis(25),
    rate: Rate::Unlimited,
    queue: 16 << 20,
};

const CALLER: &str = "spiffe://cluster.local/ns/caller/sa/default";
const STRANGER: &str = "spiffe://cluster.local/ns/stranger/sa/default";

/// Decided by the kernel.
const ONLY_CALLER: &str =
    "rules: [{from: [{source: {principals: [cluster.local/ns/caller/sa/default]}}]}]";

/// Decided request by request, and by what is not a request.
const ONLY_CALLERS_ORDERS: &str = "rules: [{from: [{source: {principals: [cluster.local/ns/caller/sa/default]}}], \
     to: [{operation: {paths: [/order]}}]}]";

fn main() -> ExitCode {
    run_tests(tests![
        a_new_connection_is_answered_sooner_than_without_a_mesh,
        early_bytes_are_carried_once_they_are_allowed,
        early_bytes_of_a_denied_connection_reach_no_application,
        early_bytes_of_a_denied_request_reach_no_application,
        first_bytes_arrive_once_behind_an_endpoint_that_fails,
        first_bytes_arrive_once_behind_an_endpoint_that_fails_if_they_are_handed_over,
    ])
}

fn a_new_connection_is_answered_sooner_than_without_a_mesh(lab: &Lab) -> Result<()> {
    const CALLS: usize = 15;
    let _link = lab.slow_link(FAR)?;
    let site = Site::start(lab, &[("plain", &[])])?;
    let pod = &site.backend("plain")?.pod;
    let _source = Source::in_pod(lab, pod, PORT)?;
    let calls = |count| Pulse {
        connections: Connections::New,
        to: pod.at(PORT),
        lanes: 1,
        count,
    };
    // Opens the tunnels of the agent's threads.
    calls(CALLS).longest_median(site.caller.place())?;
    let direct = calls(CALLS).longest_median(site.outsider.place())?;
    let meshed = calls(CALLS).longest_median(site.caller.place())?;
    println!("{direct:?} without a mesh, {meshed:?} with one");
    // The handshake and the request are two round trips.
    ensure!(direct >= FAR.delay * 4, "the link has no delay: {direct:?}");
    ensure!(
        meshed * 10 <= direct * 7,
        "{meshed:?}, and without a mesh {direct:?}"
    );
    Ok(())
}

/// A pod whose policies decide by the connection, and one whose policies decide by the request.
fn site(lab: &Lab) -> Result<Site> {
    let backends: [(&str, &[&str]); 2] = [
        ("connections", &[ONLY_CALLER]),
        ("requests", &[ONLY_CALLERS_ORDERS]),
    ];
    Site::start(lab, &backends)
}

/// A CONNECT to a pod with data right behind it, before any answer.
fn call_early(
    lab: &Lab,
    site: &Site,
    name: &str,
    identity: &'static str,
    data: &str,
) -> Result<HboneReply> {
    let pod = &site.backend(name)?.pod;
    let credentials = Claim::of(&[identity]).certify(lab)?;
    let authority = pod.at(Site::PORT).to_string();
    let call = HboneCall {
        data: TunnelData::Early(data),
        ..HboneCall::connect(
            SocketAddr::new(pod.ip(Family::V4), HBONE_PORT),
            &credentials,
            &authority,
        )
    };
    call.make(site.outsider.place())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
}

fn early_bytes_are_carried_once_they_are_allowed(lab: &Lab) -> Result<()> {
    let site = site(lab)?;
    for name in ["connections", "requests"] {
        let reply = call_early(lab, &site, name, CALLER, &get("/order"))?;
        ensure!(
            matches!(&reply, HboneReply::Status(200, answer) if !answer.is_null()),
            "{name}: {reply:?}"
        );
        let heads = site.backend(name)?.web.heads();
        ensure!(
            heads.len() == 1 && heads[0].starts_with("GET /order "),
            "{name}: {heads:?}"
        );
    }
    Ok(())
}

fn early_bytes_of_a_denied_connection_reach_no_application(lab: &Lab) -> Result<()> {
    let site = site(lab)?;
    let long = format!("{}{}", get("/order"), "x".repeat(15 << 10));
    for data in [get("/order"), long, "\u{1}not HTTP".to_owned()] {
        let reply = call_early(lab, &site, "connections", STRANGER, &data)?;
        ensure!(matches!(reply, HboneReply::Status(401, _)), "{reply:?}");
    }
    let connections = site.backend("connections")?.web.connections();
    ensure!(connections == 0, "{connections} connections were made");
    Ok(())
}

fn early_bytes_of_a_denied_request_reach_no_application(lab: &Lab) -> Result<()> {
    let site = site(lab)?;
    let web = &site.backend("requests")?.web;
    let denied = [
        (CALLER, get("/admin")),
        (CALLER, format!("{}{}", get("/admin"), get("/order"))),
        (CALLER, "\u{1}not HTTP\r\n\r\n".to_owned()),
        (STRANGER, get("/order")),
        (STRANGER, "\u{1}not HTTP\r\n\r\n".to_owned()),
    ];
    for (identity, data) in denied {
        let reply = call_early(lab, &site, "requests", identity, &data)?;
        let is_answered = matches!(&reply, HboneReply::Status(200, answer) if !answer.is_null());
        ensure!(!is_answered, "{identity}, {data:?}: {reply:?}");
    }
    let heads = web.heads();
    ensure!(heads.is_empty(), "it got {heads:?}");
    // Nor any other byte, on the connections that were made before the verdict.
    web.ensure_nothing_left()?;
    let reply = call_early(lab, &site, "requests", CALLER, &get("/order"))?;
    ensure!(matches!(reply, HboneReply::Status(200, _)), "{reply:?}");
    eventually(SOON, "the request that is allowed", || {
        (web.heads().len() == 1).then_some(())
    })
}

/// How often each Service is called. The order of its endpoints is random.
const CALLS: usize = 20;

/// What a client sends before its connection stands, and a part of it goes with the CONNECT.
const UPLOAD: u64 = 12_000;

/// Declares a Service with two endpoints: `first`, and the pod itself.
fn service_behind(lab: &Lab, first: &Pod, pod: &Pod) -> Result<Service> {
    let service = lab.add_service(pod, 80, PORT)?;
    let mut manifest = service.manifest();
    let spec = manifest["spec"].as_object_mut().context("no spec")?;
    spec.remove("selector");
    lab.manifests()
        .write_object(&service.file_name(), &manifest)?;
    let addresses = [first, pod].map(|pod| json!({"addresses": [pod.ip(Family::V4).to_string()]}));
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": manifest["metadata"]["namespace"],
            "name": pod.name(),
            "labels": {"kubernetes.io/service-name": manifest["metadata"]["name"]},
        },
        "addressType": "IPv4",
        "endpoints": addresses,
        "ports": [{"port": PORT}],
    });
    lab.manifests()
        .write_object(&format!("slice-{}.yaml", pod.name()), &slice)?;
    Ok(service)
}

/// Calls pods from one on node A, each behind a Service whose other endpoint listens nowhere.
fn ensure_first_bytes_arrive_once(lab: &Lab) -> Result<()> {
    let pods = [
        ("caller", NodeName::A, Membership::Ambient),
        ("near", NodeName::A, Membership::Ambient),
        ("far", NodeName::B, Membership::Ambient),
        ("outside", NodeName::B, Membership::None),
        ("dead", NodeName::B, Membership::Ambient),
    ];
    let pods = pods.map(|(name, node, membership)| {
        let pod = lab.add_pod(node, PodSpec::named(name))?;
        lab.manifests().write_namespace(name, membership)?;
        lab.manifests().write_pod(&pod)?;
        Ok::<_, anyhow::Error>(pod)
    });
    let pods = pods.into_iter().collect::<Result<Vec<_>>>()?;
    let [called @ .., dead] = pods.as_slice() else {
        anyhow::bail!("no pods");
    };
    let services = called
        .iter()
        .map(|pod| service_behind(lab, dead, pod))
        .collect::<Result<Vec<_>>>()?;
    let agents = lab.start_agents()?;
    for (pod, service) in called.iter().zip(services) {
        let source = Source::in_pod(lab, pod, PORT)?;
        let order = ReaderOrder {
            upload: UPLOAD,
            reading: Reading::Leaves,
            timing: Timing::InTurn,
            ..ReaderOrder::get(CALLS, service.at(), "/late/0")
        };
        let _callers = Readers::start(lab, called[0].place(), &[order])?;
        eventually(SOON, "what the callers have sent", || {
            (source.late().len() == CALLS).then_some(())
        })
        .with_context(|| format!("{}: {:?}", pod.name(), source.late()))?;
        let late = source.late();
        let is_whole = |said: &serde_json::Value| said["late"] == UPLOAD && said["intact"] == true;
        ensure!(late.iter().all(is_whole), "{}: {late:?}", pod.name());
    }
    let refused = dead.agent(&agents).refused("nothing-listens")?;
    ensure!(refused > 0, "the endpoint that fails was never the first");
    Ok(())
}

fn first_bytes_arrive_once_behind_an_endpoint_that_fails(lab: &Lab) -> Result<()> {
    ensure_first_bytes_arrive_once(lab)
}

fn first_bytes_arrive_once_behind_an_endpoint_that_fails_if_they_are_handed_over(
    lab: &Lab,
) -> Result<()> {
    lab.set_same_node(SameNode::Handoff);
    ensure_first_bytes_arrive_once(lab)
}
