//! What enters the tunnel, what stays out of it, and what never falls back to plaintext.

use std::net::SocketAddr;
use std::process::ExitCode;

use ambit_tests::{
    Application, Capture, Family, HeldConnection, Lab, LabServer, LogMark, Mode, NodeName,
    PAYLOADS, Policies, Reference, get, get_from, run_tests, tests,
};
use anyhow::{Result, ensure};

const PORT: u16 = Reference::PORT;

fn main() -> ExitCode {
    run_tests(tests![
        every_call_of_the_demo_ends_as_expected,
        both_families_are_tunnelled,
        a_server_may_speak_first,
        a_half_closed_connection_still_delivers,
        a_pod_calls_itself,
        a_server_bound_to_loopback_is_unreachable,
        traffic_out_of_the_mesh_is_untouched,
        a_peer_without_an_agent_is_refused,
    ])
}

fn every_call_of_the_demo_ends_as_expected(lab: &Lab) -> Result<()> {
    let (mesh, agents) = Reference::start_with(lab, Policies::PerRequest)?;
    let _application = Application::start(lab, &mesh)?;
    let capture = Capture::start(lab)?;
    for call in mesh.calls(lab)? {
        let mark = LogMark::now(&agents);
        let reply = call.make()?;
        let name = format!("{} to {}", call.caller, call.called);
        ensure!(call.expected.is_met_by(&reply), "{name}: {reply:?}");
        if let Some(decider) = call.decider {
            let decision = mark.decision_about(&agents, decider.pod)?;
            ensure!(decision.is_by(&decider), "{name}: {decision:?}");
        }
    }
    let captured = capture.finish()?;
    for payload in PAYLOADS {
        ensure!(!captured.contains(payload.as_bytes()), "{payload} was seen");
    }
    Ok(())
}

fn both_families_are_tunnelled(lab: &Lab) -> Result<()> {
    let (mesh, _agents) = Reference::start(lab)?;
    let _server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    let capture = Capture::start(lab)?;
    for family in Family::ALL {
        let orders = SocketAddr::new(mesh.orders.ip(family), PORT);
        let reply = get(mesh.frontend.place(), &format!("http://{orders}/secret"))?;
        ensure!(reply.is_answer(), "{family:?}: {reply:?}");
    }
    ensure!(!capture.finish()?.contains(b"GET /secret"));
    Ok(())
}

fn a_server_may_speak_first(lab: &Lab) -> Result<()> {
    let (mesh, _agents) = Reference::start(lab)?;
    let _server = LabServer::in_pod(lab, &mesh.orders, Mode::Banner, PORT)?;
    let mut caller = HeldConnection::open(lab, mesh.frontend.place(), mesh.orders.at(PORT))?;
    let banner = caller.received()?;
    ensure!(
        banner
            .as_str()
            .is_some_and(|line| line.contains("accepted")),
        "{banner}"
    );
    caller.echo("and answers")
}

fn a_half_closed_connection_still_delivers(lab: &Lab) -> Result<()> {
    let (mesh, _agents) = Reference::start(lab)?;
    let _server = LabServer::in_pod(lab, &mesh.orders, Mode::Echo, PORT)?;
    let mut caller = HeldConnection::open(lab, mesh.frontend.place(), mesh.orders.at(PORT))?;
    caller.send("the last line")?;
    caller.half_close();
    ensure!(caller.received()? == "the last line");
    ensure!(caller.end()? == "closed");
    Ok(())
}

fn a_pod_calls_itself(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    let service = lab.add_service(&mesh.frontend, 80, PORT)?;
    lab.manifests().write_service(&service)?;
    let _agents = lab.start_agents()?;
    let _server = LabServer::in_pod(lab, &mesh.frontend, Mode::Http, PORT)?;
    for address in [mesh.frontend.at(PORT), service.at()] {
        let reply = get_from(mesh.frontend.place(), address)?;
        ensure!(reply.is_answer(), "{address}: {reply:?}");
    }
    Ok(())
}

fn a_server_bound_to_loopback_is_unreachable(lab: &Lab) -> Result<()> {
    let (mesh, _agents) = Reference::start(lab)?;
    let loopback = SocketAddr::from(([127, 0, 0, 1], PORT));
    let server = LabServer::start(lab, mesh.orders.place(), Mode::Http, &[loopback])?;
    let reply = get_from(mesh.frontend.place(), mesh.orders.at(PORT))?;
    ensure!(reply.is_refusal(), "{reply:?}");
    let reply = get_from(mesh.orders.place(), loopback)?;
    ensure!(reply.is_answer(), "from inside the pod: {reply:?}");
    ensure!(server.connections().len() == 1);
    Ok(())
}

fn traffic_out_of_the_mesh_is_untouched(lab: &Lab) -> Result<()> {
    let (mesh, _agents) = Reference::start(lab)?;
    let outside = SocketAddr::new(NodeName::B.link_addresses().of(Family::V4), PORT);
    let server = LabServer::start(lab, &lab.node(NodeName::B)?, Mode::Http, &[outside])?;
    let reply = get_from(mesh.frontend.place(), outside)?;
    ensure!(reply.is_answer(), "{reply:?}");
    let seen = server.next_connection(0)?;
    let frontend = mesh.frontend.ip(Family::V4).to_string();
    ensure!(
        seen["accepted"]
            .as_str()
            .is_some_and(|peer| peer.starts_with(&frontend)),
        "{seen}"
    );
    Ok(())
}

fn a_peer_without_an_agent_is_refused(lab: &Lab) -> Result<()> {
    lab.keep_nodes_apart();
    let mesh = Reference::build(lab)?;
    let _only = lab.start_agent(NodeName::A)?;
    let server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    let reply = get_from(mesh.frontend.place(), mesh.orders.at(PORT))?;
    ensure!(reply.is_refusal(), "{reply:?}");
    ensure!(
        server.connections().is_empty(),
        "plaintext reached the server"
    );
    Ok(())
}
