//! Agents that die and come back; pods that leave and join the mesh and are recreated.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ambit_tests::{
    Agent, Capture, Family, HeldConnection, Lab, LabServer, Membership, Mode, NodeName, Place, Pod,
    PodSpec, Reference, SOON, eventually, get, get_from, pinned_links, run_tests, tests,
};
use anyhow::{Result, ensure};

const PORT: u16 = Reference::PORT;

fn main() -> ExitCode {
    run_tests(tests![
        the_callers_agent_killed_lets_nothing_out,
        the_servers_agent_killed_lets_nothing_in,
        a_pod_leaves_the_mesh_and_enters_it,
        connections_older_than_enrolment_are_closed_and_loopback_is_not,
        a_pod_made_anew_with_the_same_address_is_served,
        a_pod_whose_identity_changes_is_never_open_to_plaintext,
        the_nodes_own_namespace_is_never_enrolled,
        a_new_agent_takes_over_and_admits_no_one_meanwhile,
    ])
}

fn the_callers_agent_killed_lets_nothing_out(lab: &Lab) -> Result<()> {
    let (mesh, agents) = Reference::start(lab)?;
    let (agent, _other) = mesh.frontend.agent_of(agents);
    let server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    let outside = SocketAddr::new(NodeName::B.link_addresses().of(Family::V4), PORT);
    let _outside = LabServer::start(lab, &lab.node(NodeName::B)?, Mode::Http, &[outside])?;
    let orders = mesh.orders.at(PORT);
    let frontend = mesh.frontend.place();
    let mut held = HeldConnection::open(lab, frontend, orders)?;
    server.next_connection(0)?;
    ensure!(get_from(frontend, orders)?.is_answer());

    let capture = Capture::start(lab)?;
    agent.kill()?;
    held.end()?;
    let known = server.connections().len();
    for _ in 0..20 {
        let reply = get(frontend, &format!("http://{orders}/secret"))?;
        ensure!(reply.is_refusal(), "{reply:?}");
    }
    ensure!(server.connections().len() == known, "a call got through");
    ensure!(!capture.finish()?.contains(b"GET /secret"));
    let reply = get_from(frontend, outside)?;
    ensure!(reply.is_answer(), "outside the mesh: {reply:?}");

    let _again = lab.start_agent(mesh.frontend.node())?;
    eventually_answers(frontend, orders)
}

fn the_servers_agent_killed_lets_nothing_in(lab: &Lab) -> Result<()> {
    let (mesh, [_agent_a, agent_b]) = Reference::start(lab)?;
    let server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    let orders = mesh.orders.at(PORT);
    let mut held = HeldConnection::open(lab, mesh.frontend.place(), orders)?;
    server.next_connection(0)?;
    ensure!(get_from(mesh.frontend.place(), orders)?.is_answer());

    agent_b.kill()?;
    held.end()?;
    let known = server.connections().len();
    for caller in [&mesh.frontend, &mesh.payments, &mesh.intruder] {
        let reply = get_from(caller.place(), orders)?;
        ensure!(reply.is_refusal(), "{}: {reply:?}", caller.name());
    }
    ensure!(server.connections().len() == known, "a call got through");

    let _again = lab.start_agent(NodeName::B)?;
    eventually_answers(mesh.frontend.place(), orders)?;
    let reply = get_from(mesh.intruder.place(), orders)?;
    ensure!(reply.is_refusal(), "{reply:?}");
    Ok(())
}

fn a_pod_leaves_the_mesh_and_enters_it(lab: &Lab) -> Result<()> {
    let (mesh, _agents) = Reference::start(lab)?;
    let _server = LabServer::in_pod(lab, &mesh.frontend, Mode::Http, PORT)?;
    let frontend = mesh.frontend.at(PORT);
    let intruder = mesh.intruder.place();
    ensure!(get_from(intruder, frontend)?.is_refusal());
    lab.manifests()
        .write_namespace("frontend", Membership::None)?;
    eventually_answers(intruder, frontend)?;
    eventually_answers(mesh.payments.place(), frontend)?;
    lab.manifests()
        .write_namespace("frontend", Membership::Ambient)?;
    eventually(SOON, "the pod is closed to plaintext again", || {
        get_from(intruder, frontend)
            .ok()?
            .is_refusal()
            .then_some(())
    })?;
    eventually_answers(mesh.payments.place(), frontend)
}

fn a_pod_made_anew_with_the_same_address_is_served(lab: &Lab) -> Result<()> {
    let (mesh, _agents) = Reference::start(lab)?;
    let server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    let orders = mesh.orders.at(PORT);
    eventually_answers(mesh.frontend.place(), orders)?;
    lab.manifests().remove(&mesh.orders.file_name())?;
    drop(server);
    lab.remove_pod(&mesh.orders)?;

    let spec = PodSpec::named("orders");
    let anew = lab.add_pod_at(NodeName::B, spec, mesh.orders.addresses())?;
    lab.manifests().write_pod(&anew)?;
    let _server = LabServer::in_pod(lab, &anew, Mode::Http, PORT)?;
    eventually_answers(mesh.frontend.place(), orders)?;
    let reply = get_from(mesh.intruder.place(), orders)?;
    ensure!(reply.is_refusal(), "{reply:?}");
    Ok(())
}

fn connections_older_than_enrolment_are_closed_and_loopback_is_not(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    lab.manifests()
        .write_namespace("frontend", Membership::None)?;
    let _agents = lab.start_agents()?;
    let loopback = SocketAddr::from(([127, 0, 0, 1], PORT));
    let outside = SocketAddr::new(NodeName::B.link_addresses().of(Family::V4), PORT);
    let pod = [mesh.frontend.at(PORT), loopback];
    let _server = LabServer::start(lab, mesh.frontend.place(), Mode::Echo, &pod)?;
    let _outside = LabServer::start(lab, &lab.node(NodeName::B)?, Mode::Echo, &[outside])?;

    let open = |from: &Place, to| HeldConnection::open(lab, from, to);
    let mut inbound = open(mesh.intruder.place(), mesh.frontend.at(PORT))?;
    let mut local = open(mesh.frontend.place(), loopback)?;
    let mut outbound = open(mesh.frontend.place(), outside)?;
    for held in [&mut inbound, &mut local, &mut outbound] {
        held.echo("before")?;
    }
    lab.manifests()
        .write_namespace("frontend", Membership::Ambient)?;
    inbound.end()?;
    local.echo("still here")?;
    outbound.echo("still here")
}

fn a_pod_whose_identity_changes_is_never_open_to_plaintext(lab: &Lab) -> Result<()> {
    let (mesh, agents) = Reference::start(lab)?;
    let server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    let orders = mesh.orders.at(PORT);
    let mut changed = mesh.orders.manifest();
    for account in ["second", "third", "fourth"] {
        changed["spec"]["serviceAccountName"] = account.into();
        lab.manifests()
            .write_object(&mesh.orders.file_name(), &changed)?;
        eventually(SOON, "the new identity is served", || {
            let reply = get_from(mesh.intruder.place(), orders).ok()?;
            assert!(reply.is_refusal(), "plaintext got in: {reply:?}");
            let workloads = mesh.orders.agent(&agents).ask("workloads").ok()?;
            let mut workloads = workloads.as_array()?.iter();
            let own = workloads.find(|workload| workload["pod"] == "orders/orders")?;
            let is_served = own["state"] == "served"
                && own["identity"]
                    .as_str()?
                    .ends_with(&format!("sa/{account}"));
            is_served.then_some(())
        })?;
    }
    ensure!(server.connections().is_empty(), "plaintext got in");
    eventually_answers(mesh.frontend.place(), orders)
}

fn the_nodes_own_namespace_is_never_enrolled(lab: &Lab) -> Result<()> {
    lab.keep_nodes_apart();
    let mesh = Reference::build(lab)?;
    let node = lab.node(NodeName::A)?;
    let mut wrong = mesh.frontend.manifest();
    wrong["metadata"]["annotations"]["ambit.mesh/netns"] =
        node.netns().path().to_string_lossy().into();
    lab.manifests()
        .write_object(&mesh.frontend.file_name(), &wrong)?;
    let agents = [lab.spawn_agent(NodeName::A)?, lab.start_agent(NodeName::B)?];
    eventually(SOON, "the refusal in the status", || {
        let status = agents[0].ask("workloads").ok()?.to_string();
        status.contains("the node's own").then_some(())
    })?;
    let outside = SocketAddr::new(NodeName::A.link_addresses().of(Family::V4), PORT);
    let _server = LabServer::start(lab, &node, Mode::Http, &[outside])?;
    let reply = get_from(mesh.intruder.place(), outside)?;
    ensure!(reply.is_answer(), "the node's own server: {reply:?}");
    Ok(())
}

fn a_new_agent_takes_over_and_admits_no_one_meanwhile(lab: &Lab) -> Result<()> {
    let (mesh, [_agent_a, agent_b]) = Reference::start(lab)?;
    let server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    let orders = mesh.orders.at(PORT);
    eventually_answers(mesh.frontend.place(), orders)?;
    let is_over = AtomicBool::new(false);
    let call = |pod: &Pod| -> Result<u32> {
        let mut calls = 0;
        while !is_over.load(Ordering::Relaxed) {
            let reply = get_from(pod.place(), orders)?;
            ensure!(!reply.is_answer(), "{}: {reply:?}", pod.name());
            calls += 1;
        }
        Ok(calls)
    };
    thread::scope(|scope| {
        let callers = [&mesh.payments, &mesh.intruder].map(|pod| scope.spawn(|| call(pod)));
        let take_over = |agent: Agent, end: fn(Agent) -> Result<()>| -> Result<Agent> {
            let before = pinned_links(lab, NodeName::B)?;
            end(agent)?;
            let agent = lab.start_agent(NodeName::B)?;
            eventually_answers(mesh.frontend.place(), orders)?;
            let after = pinned_links(lab, NodeName::B)?;
            // The same links, none detached for a moment, each with the new agent's program.
            let is_replaced = |([link, program], [same, other]): (&[u64; 2], &[u64; 2])| {
                link == same && program != other
            };
            ensure!(
                before.iter().zip(&after).all(is_replaced),
                "{before:?}, then {after:?}"
            );
            Ok(agent)
        };
        let taken = take_over(agent_b, Agent::kill)
            .and_then(|agent| take_over(agent, |agent| agent.stop().map(drop)));
        is_over.store(true, Ordering::Relaxed);
        for caller in callers {
            let calls = caller
                .join()
                .map_err(|_| anyhow::anyhow!("a caller panicked"))??;
            ensure!(calls > 5, "{calls} calls only");
        }
        taken.map(drop)
    })?;
    let mut callers = server.connections().into_iter();
    let allowed = mesh.frontend.ip(Family::V4).to_string();
    ensure!(callers.all(|seen| seen["accepted"].to_string().contains(&allowed)));
    Ok(())
}

fn eventually_answers(caller: &Place, server: SocketAddr) -> Result<()> {
    eventually(SOON, &format!("an answer from {server}"), || {
        get_from(caller, server).ok()?.is_answer().then_some(())
    })
}
