//! The lab itself: without agents its network is an ordinary one, in which everything is possible that
//! the other tests forbid.

use std::net::SocketAddr;
use std::process::ExitCode;

use ambit_tests::{
    Application, Capture, Family, HeldConnection, Lab, LabServer, Mode, NodeName, Reference, Reply,
    get, get_from, output, run_tests, tests,
};
use anyhow::{Result, ensure};

fn main() -> ExitCode {
    run_tests(tests![
        all_pods_call_each_other_in_both_families,
        services_lead_to_their_pods,
        plaintext_is_seen_on_the_link,
        applications_see_the_real_addresses,
        processes_are_in_their_pods_control_group,
        every_call_of_the_demo_is_answered,
    ])
}

fn all_pods_call_each_other_in_both_families(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    let _server = LabServer::in_pod(lab, &mesh.payments, Mode::Http, Reference::PORT)?;
    for family in Family::ALL {
        let address = SocketAddr::new(mesh.payments.ip(family), Reference::PORT);
        for caller in mesh.pods() {
            let reply = get_from(caller.place(), address)?;
            ensure!(reply.is_answer(), "{}: {reply:?}", caller.name());
        }
    }
    Ok(())
}

fn services_lead_to_their_pods(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    let _server = LabServer::in_pod(lab, &mesh.payments, Mode::Http, Reference::PORT)?;
    for caller in [mesh.intruder.place(), &lab.node(NodeName::A)?] {
        let reply = get_from(caller, mesh.payments_service.at())?;
        ensure!(reply.is_answer(), "{reply:?}");
    }
    Ok(())
}

fn plaintext_is_seen_on_the_link(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    let _server = LabServer::in_pod(lab, &mesh.payments, Mode::Http, Reference::PORT)?;
    let capture = Capture::start(lab)?;
    let payments = mesh.payments.at(Reference::PORT);
    get(
        mesh.orders.place(),
        &format!("http://{payments}/secret-of-this-test"),
    )?;
    let captured = capture.finish()?;
    ensure!(captured.contains(b"secret-of-this-test"));
    ensure!(!captured.contains(b"never-sent-by-this-test"));
    Ok(())
}

fn applications_see_the_real_addresses(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    let server = LabServer::in_pod(lab, &mesh.payments, Mode::Echo, Reference::PORT)?;
    let payments = mesh.payments.at(Reference::PORT);
    let mut client = HeldConnection::open(lab, mesh.orders.place(), payments)?;
    client.echo("hello")?;
    let seen = server.next_connection(0)?;
    ensure!(seen["accepted"] == client.opened()["local"], "{seen}");
    ensure!(seen["peer"] == client.opened()["local"], "{seen}");
    ensure!(seen["local"] == client.opened()["peer"], "{seen}");
    drop(server);
    ensure!(client.end()? == "closed");
    Ok(())
}

fn processes_are_in_their_pods_control_group(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    let mut cat = mesh.orders.command("cat")?;
    let answer = output(cat.arg("/proc/self/cgroup"))?;
    let group = format!("/{}/node-b/kubepods/orders", lab.name());
    ensure!(answer.stdout.contains(&group), "{answer:?}");
    Ok(())
}

fn every_call_of_the_demo_is_answered(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    let _application = Application::start(lab, &mesh)?;
    for call in mesh.calls(lab)? {
        let reply = call.make()?;
        ensure!(
            matches!(reply, Reply::Answer(_) | Reply::Status(..)),
            "{} to {}: {reply:?}",
            call.caller,
            call.called
        );
    }
    Ok(())
}
