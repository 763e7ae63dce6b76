//! Connections between two pods of one node with `--same-node handoff`: what a tunnel would let through is handed
//! from socket to socket, and what it would refuse is refused.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use ambit_tests::{
    Agent, CaServer, Capture, Family, HeldConnection, Lab, LabServer, Membership, Mode, NodeName,
    Pod, PodSpec, RawCall, SOON, SameNode, Swarm, SwarmServer, Until, WebServer, eventually, get,
    get_from, run_tests, tests,
};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use socket2::SockRef;

const PORT: u16 = 8080;

/// Not the connection's number, nor in any address.
const MARK: &str = "/a-mark-that-no-link-carries";

fn main() -> ExitCode {
    run_tests(tests![
        both_halves_are_shown_and_counted,
        the_default_is_a_tunnel,
        a_pod_of_another_node_is_reached_through_a_tunnel,
        nothing_handed_over_is_on_a_link,
        a_denial_names_its_policy_and_reaches_no_application,
        a_policy_that_denies_from_now_on_ends_both_halves,
        requests_are_judged_one_by_one,
        an_expired_certificate_hands_nothing_over,
        a_pod_in_anothers_place_is_not_taken_for_it,
        a_pod_that_leaves_the_mesh_ends_what_was_handed_to_it,
        the_end_of_either_side_reaches_the_other,
        an_agent_that_stops_gives_them_time_to_end,
        many_connections_at_once,
    ])
}

/// A caller and a server on node B, in namespaces of their names.
struct Site {
    caller: Pod,
    server: Pod,
    agents: [Agent; 2],
}

impl Site {
    fn start(lab: &Lab, policy: &str) -> Result<Self> {
        lab.set_same_node(SameNode::Handoff);
        Self::start_as_set(lab, NodeName::B, policy)
    }

    fn start_as_set(lab: &Lab, of_caller: NodeName, policy: &str) -> Result<Self> {
        let caller = add(lab, of_caller, "caller")?;
        let server = add(lab, NodeName::B, "server")?;
        lab.manifests().write("policy.yaml", policy)?;
        Ok(Self {
            caller,
            server,
            agents: lab.start_agents()?,
        })
    }

    /// The agent that serves the server.
    fn agent(&self) -> &Agent {
        self.server.agent(&self.agents)
    }

    fn at(&self) -> SocketAddr {
        self.server.at(PORT)
    }

    fn hold(&self, lab: &Lab) -> Result<HeldConnection> {
        HeldConnection::open(lab, self.caller.place(), self.at())
    }

    /// The connections that are handed over, both halves of each.
    fn halves(&self) -> Result<Vec<Value>> {
        let all = self.agent().ask("connections")?;
        let all = all.as_array().context("no list")?.iter();
        Ok(all
            .filter(|one| one["path"] == "handoff")
            .cloned()
            .collect())
    }
}

fn add(lab: &Lab, node: NodeName, name: &'static str) -> Result<Pod> {
    let pod = lab.add_pod(node, PodSpec::named(name))?;
    lab.manifests().write_namespace(name, Membership::Ambient)?;
    lab.manifests().write_pod(&pod)?;
    Ok(pod)
}

const ALLOW: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: server}
spec:
  rules: [{from: [{source: {principals: [cluster.local/ns/caller/sa/default]}}]}]
";

const DENY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-callers, namespace: server}
spec:
  action: DENY
  rules: [{from: [{source: {namespaces: [caller]}}]}]
";

/// Only what reads `/open`.
const BY_REQUEST: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: open, namespace: server}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/caller/sa/default]}}]
    to: [{operation: {methods: [GET], paths: [/open]}}]
";

/// The lines of an agent's access log about connections that were handed over, of one direction.
fn logged(agent: &Agent, direction: &str) -> Vec<Value> {
    let log = agent.log();
    let entries = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    entries
        .filter(|entry: &Value| {
            let fields = &entry["fields"];
            entry["target"] == "ambit::access"
                && fields["message"] == "connection"
                && fields["path"] == "handoff"
                && fields["direction"] == direction
        })
        .map(|entry| entry["fields"].clone())
        .collect()
}

fn count(agent: &Agent, kind: &str, word: &str) -> Result<u64> {
    let status = agent.ask("status")?;
    Ok(status["proxy"][kind][word].as_u64().unwrap_or(0))
}

fn both_halves_are_shown_and_counted(lab: &Lab) -> Result<()> {
    let site = Site::start(lab, ALLOW)?;
    let server = LabServer::in_pod(lab, &site.server, Mode::Echo, PORT)?;
    for family in Family::ALL {
        let to = SocketAddr::new(site.server.ip(family), PORT);
        let mut held = HeldConnection::open(lab, site.caller.place(), to)?;
        held.echo("twelve bytes")?;
        let seen = server.next_connection(usize::from(family == Family::V6))?;
        ensure!(
            seen["accepted"] == held.opened()["local"] && seen["local"] == to.to_string(),
            "{seen}, but the caller is {}",
            held.opened()
        );
        let halves = site.halves()?;
        for (direction, pod) in [("outbound", "caller/caller"), ("inbound", "server/server")] {
            let half = halves.iter().find(|half| half["direction"] == direction);
            let half = half.with_context(|| format!("no {direction} half in {halves:?}"))?;
            let is_whole = half["pod"] == pod
                && half["source"]["identity"] == "cluster.local/ns/caller/sa/default"
                && half["destination"]["identity"] == "cluster.local/ns/server/sa/default"
                && half["destination"]["address"] == to.to_string()
                && half["bytes_sent"] == 13
                && half["bytes_received"] == 13;
            ensure!(is_whole, "{half}");
        }
        held.half_close();
        ensure!(held.end()? == "closed");
    }
    eventually(SOON, "the ends of both halves", || {
        let is_over = site.halves().ok()?.is_empty();
        is_over.then_some(())
    })?;
    for direction in ["outbound", "inbound"] {
        let word = format!("{direction}-handoff");
        ensure!(count(site.agent(), "finished", &word)? == 2, "{word}");
        let metrics = site.agent().metrics()?;
        ensure!(metrics.contains(&word), "{word} is not in the metrics");
        let lines = logged(site.agent(), direction);
        let is_whole = |line: &Value| line["outcome"] == "finished" && line["bytes_sent"] == 13;
        ensure!(lines.len() == 2 && lines.iter().all(is_whole), "{lines:?}");
    }
    ensure!(site.agent().ask("status")?["same_node"] == "handoff");
    Ok(())
}

fn the_default_is_a_tunnel(lab: &Lab) -> Result<()> {
    lab.set_same_node(SameNode::Tunnel);
    let site = Site::start_as_set(lab, NodeName::B, ALLOW)?;
    let _server = LabServer::in_pod(lab, &site.server, Mode::Echo, PORT)?;
    let mut held = site.hold(lab)?;
    held.echo("through a tunnel")?;
    ensure!(site.halves()?.is_empty());
    ensure!(site.agent().ask("status")?["same_node"] == "tunnel");
    Ok(())
}

fn a_pod_of_another_node_is_reached_through_a_tunnel(lab: &Lab) -> Result<()> {
    lab.set_same_node(SameNode::Handoff);
    let site = Site::start_as_set(lab, NodeName::A, ALLOW)?;
    let _server = LabServer::in_pod(lab, &site.server, Mode::Echo, PORT)?;
    let mut held = site.hold(lab)?;
    held.echo("through a tunnel")?;
    let listed = site.agents[0].ask("connections")?.to_string();
    ensure!(listed.contains("\"tunnel\""), "{listed}");
    ensure!(site.halves()?.is_empty());
    Ok(())
}

/// On no device of the node: neither its own nor its ends of its pods' links.
fn nothing_handed_over_is_on_a_link(lab: &Lab) -> Result<()> {
    lab.set_same_node(SameNode::Handoff);
    let outsiders =
        ["outside", "farther"].map(|name| lab.add_pod(NodeName::B, PodSpec::named(name)));
    let [one, other] = outsiders;
    let (one, other) = (one?, other?);
    for pod in [&one, &other] {
        lab.manifests()
            .write_namespace(pod.namespace(), Membership::None)?;
        lab.manifests().write_pod(pod)?;
    }
    let site = Site::start_as_set(lab, NodeName::B, ALLOW)?;
    let _server = LabServer::in_pod(lab, &site.server, Mode::Http, PORT)?;
    let _other = LabServer::in_pod(lab, &other, Mode::Http, PORT)?;
    let capture = Capture::on_every_device(lab, NodeName::B)?;
    for family in Family::ALL {
        let to = SocketAddr::new(site.server.ip(family), PORT);
        let reply = get(site.caller.place(), &format!("http://{to}{MARK}"))?;
        ensure!(reply.is_answer(), "{reply:?}");
        let reply = get(
            one.place(),
            &format!("http://{}/in-plaintext", other.at(PORT)),
        )?;
        ensure!(reply.is_answer(), "{reply:?}");
    }
    let captured = capture.finish()?;
    ensure!(
        captured.contains(b"GET /in-plaintext"),
        "nothing was captured"
    );
    ensure!(!captured.contains(MARK.as_bytes()), "it is on a link");
    let addresses = [&site.caller, &site.server].map(|pod| pod.addresses().v4.octets());
    for [from, to] in [addresses, [addresses[1], addresses[0]]] {
        // Next to each other in an IPv4 header.
        let pair = [from, to].concat();
        ensure!(!captured.contains(&pair), "a packet between the pods");
    }
    ensure!(count(site.agent(), "finished", "inbound-handoff")? == 2);
    Ok(())
}

fn a_denial_names_its_policy_and_reaches_no_application(lab: &Lab) -> Result<()> {
    let site = Site::start(lab, DENY)?;
    let server = LabServer::in_pod(lab, &site.server, Mode::Http, PORT)?;
    let reply = get_from(site.caller.place(), site.at())?;
    ensure!(reply.is_refusal(), "{reply:?}");
    ensure!(
        server.connections().is_empty(),
        "the application was reached"
    );
    let events = site.agent().ask("events")?.to_string();
    ensure!(events.contains("server/no-callers"), "{events}");
    for direction in ["outbound", "inbound"] {
        let lines = logged(site.agent(), direction);
        let reason = lines.iter().map(|line| line["reason"].to_string()).next();
        let reason = reason.with_context(|| format!("no {direction} half is in the log"))?;
        ensure!(
            reason.contains("server/no-callers"),
            "{direction}: {reason}"
        );
    }
    ensure!(count(site.agent(), "refused", "handoff-denied")? == 1);
    Ok(())
}

fn a_policy_that_denies_from_now_on_ends_both_halves(lab: &Lab) -> Result<()> {
    let site = Site::start(lab, ALLOW)?;
    let listener = listen(&site.server)?;
    let mut held = site.hold(lab)?;
    let mut application = listener.accept()?.0;
    held.send("allowed")?;
    application.read_exact(&mut [0; 8])?;
    lab.manifests().write("policy.yaml", DENY)?;
    ensure!(held.end()? == "ConnectionReset");
    let end = application.read(&mut [0]).map_err(|error| error.kind());
    ensure!(end == Err(ErrorKind::ConnectionReset), "{end:?}");
    ensure!(site.halves()?.is_empty());
    for (direction, counter) in [
        ("outbound", "ended-at-destination"),
        ("inbound", "policy-changed"),
    ] {
        let lines = logged(site.agent(), direction);
        let [line] = &lines[..] else {
            anyhow::bail!("{direction}: {lines:?}");
        };
        let reason = line["reason"].to_string();
        ensure!(
            line["outcome"] == "terminated" && reason.contains("server/no-callers"),
            "{line}"
        );
        ensure!(
            count(site.agent(), "terminated", counter)? == 1,
            "{counter}"
        );
    }
    Ok(())
}

fn requests_are_judged_one_by_one(lab: &Lab) -> Result<()> {
    lab.set_same_node(SameNode::Handoff);
    let caller = add(lab, NodeName::B, "caller")?;
    let server = add(lab, NodeName::B, "server")?;
    let service = lab.add_service(&server, 80, PORT)?.speaking("http");
    lab.manifests().write_service(&service)?;
    lab.manifests().write("policy.yaml", BY_REQUEST)?;
    let agents = lab.start_agents()?;
    let web = WebServer::in_pod(lab, &server, &[PORT])?;
    let both = "GET /open HTTP/1.1\r\nHost: x\r\n\r\nGET /closed HTTP/1.1\r\nHost: x\r\n\r\n";
    let call = RawCall {
        to: server.at(PORT),
        bytes: both.as_bytes(),
        until: Until::Answers(2),
    };
    let reply = call.make(caller.place())?;
    ensure!(reply.statuses() == [200, 403], "{reply:?}");
    let heads = web.heads();
    ensure!(heads.len() == 1 && heads[0].contains("/open"), "{heads:?}");
    let log = server.agent(&agents).log();
    let judged = log
        .lines()
        .filter(|line| line.contains("\"handoff\"") && line.contains("request.path"));
    ensure!(judged.count() == 2, "{log}");
    Ok(())
}

/// Connections that are open go on, as those in a tunnel do.
fn an_expired_certificate_hands_nothing_over(lab: &Lab) -> Result<()> {
    lab.set_same_node(SameNode::Handoff);
    let ca = CaServer::start(lab, Duration::from_secs(20))?;
    let site = Site::start_as_set(lab, NodeName::B, ALLOW)?;
    let server = LabServer::in_pod(lab, &site.server, Mode::Echo, PORT)?;
    let mut held = site.hold(lab)?;
    held.echo("while they are valid")?;
    server.next_connection(0)?;
    ca.kill()?;
    eventually(SOON, "a refusal", || {
        get_from(site.caller.place(), site.at()).ok()?;
        let refused = count(site.agent(), "refused", "no-certificate").ok()?;
        (refused > 0).then_some(())
    })?;
    let known = server.connections().len();
    let reply = get_from(site.caller.place(), site.at())?;
    ensure!(reply.is_refusal(), "{reply:?}");
    ensure!(
        server.connections().len() == known,
        "the application was reached"
    );
    let log = site.agent().log();
    ensure!(
        log.contains("has no valid certificate"),
        "no reason in the log"
    );
    held.echo("still open")?;
    ca.restart(lab)?;
    eventually(SOON, "a connection with new certificates", || {
        site.hold(lab).ok()?.echo("again").ok()
    })
}

/// Neither at its address, nor by its Service, nor on a connection that is open.
fn a_pod_in_anothers_place_is_not_taken_for_it(lab: &Lab) -> Result<()> {
    lab.set_same_node(SameNode::Handoff);
    let caller = add(lab, NodeName::B, "caller")?;
    let server = add(lab, NodeName::B, "server")?;
    let service = lab.add_service(&server, 80, PORT)?;
    lab.manifests().write_service(&service)?;
    lab.manifests().write("policy.yaml", ALLOW)?;
    let site = Site {
        agents: lab.start_agents()?,
        caller,
        server,
    };
    let echo = LabServer::in_pod(lab, &site.server, Mode::Echo, PORT)?;
    let mut held = site.hold(lab)?;
    held.echo("to the first one")?;
    lab.manifests().remove(&site.server.file_name())?;
    drop(echo);
    lab.remove_pod(&site.server)?;
    held.end()?;

    let spec = PodSpec::named("other");
    let other = lab.add_pod_at(NodeName::B, spec, site.server.addresses())?;
    lab.manifests()
        .write_namespace("other", Membership::Ambient)?;
    lab.manifests().write_pod(&other)?;
    let echo = LabServer::in_pod(lab, &other, Mode::Echo, PORT)?;
    let mut held = eventually(SOON, "a connection to the other one", || {
        let mut held = site.hold(lab).ok()?;
        held.echo("to the other one").ok()?;
        Some(held)
    })?;
    let halves = site.halves()?;
    ensure!(halves.len() == 2, "{halves:?}");
    for half in &halves {
        let identity = &half["destination"]["identity"];
        ensure!(identity == "cluster.local/ns/other/sa/default", "{half}");
    }
    let known = echo.connections().len();
    let reply = get_from(site.caller.place(), service.at())?;
    ensure!(reply.is_refusal(), "by the Service: {reply:?}");
    ensure!(
        echo.connections().len() == known,
        "it was taken for the first one"
    );
    held.echo("still there")
}

fn a_pod_that_leaves_the_mesh_ends_what_was_handed_to_it(lab: &Lab) -> Result<()> {
    let site = Site::start(lab, ALLOW)?;
    let _server = LabServer::in_pod(lab, &site.server, Mode::Echo, PORT)?;
    for (namespace, counter) in [
        ("server", "ended-at-destination"),
        ("caller", "ended-at-source"),
    ] {
        let mut held = site.hold(lab)?;
        held.echo("in the mesh")?;
        lab.manifests()
            .write_namespace(namespace, Membership::None)?;
        held.end()?;
        eventually(SOON, "the ends of both halves", || {
            site.halves().ok()?.is_empty().then_some(())
        })?;
        ensure!(
            count(site.agent(), "terminated", counter)? == 1,
            "{counter}"
        );
        lab.manifests()
            .write_namespace(namespace, Membership::Ambient)?;
        eventually(SOON, "it is handed over again", || {
            let mut held = site.hold(lab).ok()?;
            held.echo("in the mesh again").ok()?;
            (site.halves().ok()?.len() == 2).then_some(())
        })?;
    }
    Ok(())
}

fn the_end_of_either_side_reaches_the_other(lab: &Lab) -> Result<()> {
    let site = Site::start(lab, ALLOW)?;
    let listener = listen(&site.server)?;
    let open = || -> Result<(HeldConnection, TcpStream)> {
        let held = site.hold(lab)?;
        Ok((held, listener.accept()?.0))
    };

    let (mut held, mut application) = open()?;
    held.send("the last line")?;
    held.half_close();
    let mut said = String::new();
    application.read_to_string(&mut said)?;
    ensure!(said == "the last line\n", "{said:?}");
    application.write_all(b"the answer\n")?;
    drop(application);
    ensure!(held.received()? == "the answer" && held.end()? == "closed");

    let (mut held, application) = open()?;
    SockRef::from(&application).set_linger(Some(Duration::ZERO))?;
    drop(application);
    ensure!(held.end()? == "ConnectionReset");

    let script = format!(
        "import socket, struct; s = socket.create_connection(('{}', {PORT})); s.send(b'x'); \
         s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); \
         input(); s.close()",
        site.server.ip(Family::V4)
    );
    let mut client = site.caller.place().command("python3")?;
    let mut client = client.args(["-c", &script]).stdin(Stdio::piped()).spawn()?;
    let mut application = listener.accept()?.0;
    application.read_exact(&mut [0])?;
    drop(client.stdin.take());
    let end = application.read(&mut [0]).map_err(|error| error.kind());
    client.wait()?;
    ensure!(end == Err(ErrorKind::ConnectionReset), "{end:?}");
    Ok(())
}

fn an_agent_that_stops_gives_them_time_to_end(lab: &Lab) -> Result<()> {
    let site = Site::start(lab, ALLOW)?;
    let _server = LabServer::in_pod(lab, &site.server, Mode::Echo, PORT)?;
    let mut late = site.hold(lab)?;
    late.echo("it stays open")?;
    let mut held = site.hold(lab)?;
    held.echo("before")?;
    let (agent, _other) = site.server.agent_of(site.agents);
    agent.signal(Signal::SIGTERM)?;
    // While it drains.
    held.echo("after")?;
    held.half_close();
    ensure!(held.end()? == "closed");
    let (status, log) = agent.end()?;
    ensure!(status.success(), "{status}");
    ensure!(late.end()? == "ConnectionReset");
    let stopped = log.lines().filter(|line| {
        line.contains("\"handoff\"")
            && line.contains("terminated")
            && line.contains("the agent stops")
    });
    ensure!(stopped.count() == 2, "not both halves: {log}");
    Ok(())
}

fn many_connections_at_once(lab: &Lab) -> Result<()> {
    let site = Site::start(lab, ALLOW)?;
    let _server = SwarmServer::start(lab, site.server.place(), site.at())?;
    let time = Duration::from_secs(3);
    let mut swarm = Swarm::churn(lab, site.caller.place(), site.at(), time)?;
    let (answered, refused) = swarm.outcome()?;
    ensure!(
        answered > 100 && refused == 0,
        "{answered}, {refused} refused"
    );
    eventually(SOON, "no connection is left", || {
        site.halves().ok()?.is_empty().then_some(())
    })?;
    let finished = count(site.agent(), "finished", "inbound-handoff")?;
    ensure!(
        finished >= answered,
        "{finished} of {answered} were handed over"
    );
    Ok(())
}

/// A server of this process in a pod.
fn listen(pod: &Pod) -> Result<TcpListener> {
    let address = pod.at(PORT);
    Ok(pod.place().netns().enter(|| TcpListener::bind(address))??)
}
