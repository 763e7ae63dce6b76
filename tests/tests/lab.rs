//! The lab itself: without agents its network is an ordinary one, in which everything is possible that
//! the other tests forbid.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use ambit_tests::{
    Application, Capture, Connections, Family, HeldConnection, Lab, LabServer, Link, Mode, Nginx,
    NodeName, Pod, Pulse, Rate, ReaderOrder, Readers, Reference, Relay, Reply, SOON, Source,
    Ztunnel, eventually, get, get_from, output, proxy_binary, relay_binary, run_tests, tests,
};
use anyhow::{Context, Result, bail, ensure};

fn main() -> ExitCode {
    run_tests(tests![
        all_pods_call_each_other_in_both_families,
        services_lead_to_their_pods,
        plaintext_is_seen_on_the_link,
        applications_see_the_real_addresses,
        processes_are_in_their_pods_control_group,
        every_call_of_the_demo_is_answered,
        a_slow_link_delays_and_limits,
        relays_carry_whole_answers,
        a_peers_proxy_gets_its_pods_connections,
        a_peers_proxy_that_ends_is_reported,
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

fn a_slow_link_delays_and_limits(lab: &Lab) -> Result<()> {
    const BYTES: u64 = 1 << 20;
    let link = Link {
        delay: Duration::from_millis(20),
        rate: Rate::Kilobits(8000),
        queue: 64 << 10,
    };
    let _link = lab.slow_link(link)?;
    let mesh = Reference::build(lab)?;
    let _source = Source::in_pod(lab, &mesh.payments, 8090)?;
    for family in Family::ALL {
        let to = SocketAddr::new(mesh.payments.ip(family), 8090);
        let calls = Pulse {
            connections: Connections::New,
            to,
            lanes: 1,
            count: 5,
        };
        // The handshake and the request are two round trips.
        let waited = calls.longest_median(mesh.orders.place())?;
        ensure!(waited >= link.delay * 4, "{family:?}: {waited:?}");
        ensure!(waited < link.delay * 40, "{family:?}: {waited:?}");
        let order = ReaderOrder::get(1, to, "/whole/1048576");
        let mut reader = Readers::start(lab, mesh.orders.place(), &[order])?;
        let answers = reader.answers(SOON)?;
        ensure!(
            answers.len() == 1 && answers[0].is(200, BYTES),
            "{answers:?}"
        );
        // As fast as 8 Mbit/s are, and not much slower.
        let took = answers[0].took;
        ensure!(took >= Duration::from_millis(1048), "{family:?}: {took:?}");
        ensure!(took < Duration::from_secs(10), "{family:?}: {took:?}");
    }
    Ok(())
}

fn relays_carry_whole_answers(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    let site = lab.directory().join("site");
    std::fs::create_dir(&site)?;
    std::fs::write(site.join("large"), vec![b'x'; 8 << 20])?;
    let nginx = Nginx {
        name: "site-server",
        listen: &[mesh.payments.at(8080)],
        protocol: "",
        locations: &format!("root {};", site.display()),
    };
    let _server = nginx.start(lab, mesh.payments.place())?;
    let program = relay_binary()?;
    let start = |pod: &Pod, from: SocketAddr, to: SocketAddr| {
        let routes = &[(from, to)];
        let program = &program;
        Relay { program, routes }.start(lab, pod.place())
    };
    let entrance = SocketAddr::from(([127, 0, 0, 1], 8080));
    let between = mesh.payments.at(28080);
    let _relays = [
        start(&mesh.payments, between, mesh.payments.at(8080))?,
        start(&mesh.orders, entrance, between)?,
    ];
    let reply = get(mesh.orders.place(), &format!("http://{entrance}/large"))?;
    let Reply::Answer(answer) = reply else {
        bail!("{reply:?}");
    };
    ensure!(answer.len() == 8 << 20, "{} bytes", answer.len());
    Ok(())
}

fn a_peers_proxy_gets_its_pods_connections(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    let server = LabServer::in_pod(lab, &mesh.payments, Mode::Http, Reference::PORT)?;
    let proxy = Ztunnel::at(&proxy_binary()?)?;
    let pods = [&mesh.orders, &mesh.payments];
    let own = proxy.start(lab, &mesh.orders, &pods)?;
    let others = proxy.start(lab, &mesh.payments, &pods)?;
    let payments = mesh.payments.at(Reference::PORT);
    let reply = get_from(mesh.orders.place(), payments)?;
    ensure!(reply.is_answer(), "{reply:?}");
    // Each logs a connection when both directions have ended.
    for proxy in [&own, &others] {
        eventually(SOON, "a connection through the proxy", || {
            let words = format!("carried: Ok({payments})");
            proxy.log().contains(&words).then_some(())
        })?;
    }
    ensure!(others.log().lines().count() == 1, "{}", others.log());
    ensure!(server.connections().len() == 1);
    Ok(())
}

fn a_peers_proxy_that_ends_is_reported(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    let proxy = Ztunnel::at(&proxy_binary()?)?;
    // It does not know the pod that it is for.
    let refused = proxy.start(lab, &mesh.orders, &[&mesh.payments]).err();
    let error = format!("{:#}", refused.context("it started")?);
    for words in ["in pod orders", "ended first", "is not a workload"] {
        ensure!(error.contains(words), "{error}");
    }
    // Nothing is redirected to it.
    let _server = LabServer::in_pod(lab, &mesh.payments, Mode::Http, Reference::PORT)?;
    let reply = get_from(mesh.orders.place(), mesh.payments.at(Reference::PORT))?;
    ensure!(reply.is_answer(), "{reply:?}");
    Ok(())
}
