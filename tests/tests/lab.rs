//! The lab itself: without agents its network is an ordinary one, in which what the other tests
//! forbid is possible.

use std::process::ExitCode;

use ambit_tests::{
    Application, Capture, Ending, Family, HeldConnection, Lab, LabServer, Mode, NodeName,
    Reference, curl, run_tests, tests,
};
use anyhow::{Result, ensure};

fn main() -> ExitCode {
    run_tests(tests![
        anybody_calls_anybody_in_both_families,
        services_lead_to_their_pods,
        plaintext_is_seen_on_the_link,
        applications_see_the_real_addresses,
        processes_are_in_their_pods_control_group,
        without_agents_every_call_of_the_demo_is_answered,
    ])
}

fn anybody_calls_anybody_in_both_families(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    for family in Family::ALL {
        let address = (mesh.payments.ip(family), Reference::PORT).into();
        let name = format!("payments-{family:?}");
        let _server = LabServer::start(lab, mesh.payments.place(), &name, Mode::Http, address)?;
        for caller in mesh.pods() {
            let answer = curl(caller.place(), &[&format!("http://{address}/charge")])?;
            ensure!(answer.status.success(), "{}: {answer:?}", caller.name());
        }
    }
    Ok(())
}

fn services_lead_to_their_pods(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    let address = mesh.payments.at(Reference::PORT);
    let place = mesh.payments.place();
    let _server = LabServer::start(lab, place, "payments", Mode::Http, address)?;
    let url = format!("http://{}/", mesh.payments_service.at());
    for caller in [mesh.intruder.place(), &lab.node(NodeName::A)?] {
        let answer = curl(caller, &[&url])?;
        ensure!(answer.stdout.contains(&address.to_string()), "{answer:?}");
    }
    Ok(())
}

fn plaintext_is_seen_on_the_link(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    let address = mesh.payments.at(Reference::PORT);
    let place = mesh.payments.place();
    let _server = LabServer::start(lab, place, "payments", Mode::Http, address)?;
    let capture = Capture::start(lab)?;
    curl(
        mesh.orders.place(),
        &[&format!("http://{address}/secret-of-this-test")],
    )?;
    let captured = capture.finish()?;
    ensure!(captured.contains(b"secret-of-this-test"));
    ensure!(!captured.contains(b"never-sent-by-this-test"));
    Ok(())
}

fn applications_see_the_real_addresses(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    let address = mesh.payments.at(Reference::PORT);
    let place = mesh.payments.place();
    let server = LabServer::start(lab, place, "payments", Mode::Echo, address)?;
    let mut client = HeldConnection::open(lab, mesh.orders.place(), "orders", address)?;
    client.echo("hello")?;
    let seen = server.next_connection(0)?;
    ensure!(seen["peer"] == client.opened()["local"], "{seen}");
    ensure!(seen["local"] == client.opened()["peer"], "{seen}");
    drop(server);
    ensure!(client.end()? == "closed");
    Ok(())
}

fn processes_are_in_their_pods_control_group(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    let mut cat = mesh.orders.command("cat")?;
    let answer = ambit_tests::output(cat.arg("/proc/self/cgroup"))?;
    let group = format!("/{}/node-b/kubepods/orders", lab.name());
    ensure!(answer.stdout.contains(&group), "{answer:?}");
    Ok(())
}

fn without_agents_every_call_of_the_demo_is_answered(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    let _application = Application::start(lab, &mesh)?;
    for call in mesh.calls(lab)? {
        let seen = call.make()?;
        let (caller, called) = (call.caller, call.called);
        let answered = matches!(seen.ending, Ending::Answered(_));
        ensure!(answered, "{caller} to {called}: {}", seen.detail);
    }
    Ok(())
}
