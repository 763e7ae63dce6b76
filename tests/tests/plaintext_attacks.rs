//! Plaintext against a pod that demands mutual TLS. Each attack is refused, the server does not notice
//! it, and the log names the policy that refused it.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use ambit_tests::{
    Agent, Family, Lab, LabServer, LogMark, Mode, NodeName, Place, Reference, SOON, eventually,
    get_from, run_tests, tests,
};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

const PORT: u16 = Reference::PORT;
const PROBE_PORT: u16 = Reference::PROBE_PORT;
/// No object declares it.
const UNDECLARED_PORT: u16 = 9999;
/// The port of a server on the node itself.
const NODE_PORT: u16 = 10_250;
/// In the query of a URL.
const SECRET: &str = "sEcReT-of-an-issuer";
const STRICT: &str = "PeerAuthentication istio-system/default";

fn main() -> ExitCode {
    run_tests(tests![
        from_a_pod_outside_the_mesh,
        by_the_address_of_the_service,
        from_the_node_to_a_port_without_a_probe,
        from_the_node_to_a_port_with_a_probe_is_allowed,
        from_a_pod_in_the_nodes_network_to_a_port_with_a_probe,
        from_the_agent_to_a_port_with_a_probe,
        from_the_agent_to_its_own_node,
        at_the_agents_own_ports_from_outside,
        at_the_agents_own_ports_from_inside,
        at_the_tunnel_port_from_a_pod_of_the_mesh,
    ])
}

/// `payments`, with a server on three ports.
struct Target {
    mesh: Reference,
    agents: [Agent; 2],
    server: LabServer,
}

impl Target {
    fn start(lab: &Lab) -> Result<Self> {
        let (mesh, agents) = Reference::start(lab)?;
        let listen = Family::ALL.map(|family| {
            [PORT, PROBE_PORT, UNDECLARED_PORT]
                .map(|port| SocketAddr::new(mesh.payments.ip(family), port))
        });
        let place = mesh.payments.place();
        let server = LabServer::start(lab, place, Mode::Http, &listen.concat())?;
        Ok(Self {
            mesh,
            agents,
            server,
        })
    }

    fn at(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.mesh.payments.ip(family), port)
    }

    /// Calls `dialled`, which leads to `reached`, and is refused because of STRICT.
    fn ensure_strict(&self, from: &Place, dialled: SocketAddr, reached: SocketAddr) -> Result<()> {
        let mark = LogMark::now(&self.agents);
        let reply = get_from(from, dialled)?;
        ensure!(reply.is_refusal(), "{dialled}: {reply:?}");
        let decision = mark.decision_about(&self.agents, reached)?;
        ensure!(
            decision.path == "plaintext" && decision.decided_by == STRICT,
            "{dialled}: {decision:?}"
        );
        self.ensure_unreached()
    }

    fn ensure_unreached(&self) -> Result<()> {
        ensure!(
            self.server.connections().is_empty(),
            "the server was reached"
        );
        Ok(())
    }
}

fn from_a_pod_outside_the_mesh(lab: &Lab) -> Result<()> {
    let target = Target::start(lab)?;
    for family in Family::ALL {
        for port in [PORT, PROBE_PORT, UNDECLARED_PORT] {
            let at = target.at(family, port);
            target.ensure_strict(target.mesh.intruder.place(), at, at)?;
        }
    }
    Ok(())
}

fn by_the_address_of_the_service(lab: &Lab) -> Result<()> {
    let target = Target::start(lab)?;
    let service = target.mesh.payments_service.at();
    let reached = target.at(Family::V4, PORT);
    target.ensure_strict(target.mesh.intruder.place(), service, reached)
}

fn from_the_node_to_a_port_without_a_probe(lab: &Lab) -> Result<()> {
    let target = Target::start(lab)?;
    let node = lab.node(NodeName::A)?;
    for family in Family::ALL {
        for port in [PORT, UNDECLARED_PORT] {
            let at = target.at(family, port);
            target.ensure_strict(&node, at, at)?;
        }
    }
    Ok(())
}

fn from_the_node_to_a_port_with_a_probe_is_allowed(lab: &Lab) -> Result<()> {
    let target = Target::start(lab)?;
    let node = lab.node(NodeName::A)?;
    for family in Family::ALL {
        let at = target.at(family, PROBE_PORT);
        let reply = get_from(&node, at)?;
        ensure!(reply.is_answer(), "{at}: {reply:?}");
    }
    let other_node = lab.node(NodeName::B)?;
    let reply = get_from(&other_node, target.at(Family::V4, PROBE_PORT))?;
    ensure!(reply.is_refusal(), "from the other node: {reply:?}");
    Ok(())
}

fn from_a_pod_in_the_nodes_network_to_a_port_with_a_probe(lab: &Lab) -> Result<()> {
    let target = Target::start(lab)?;
    let pod = lab.host_network_pod(NodeName::A, "host-network")?;
    for family in Family::ALL {
        let at = target.at(family, PROBE_PORT);
        target.ensure_strict(&pod, at, at)?;
    }
    Ok(())
}

/// Makes the agents fetch the keys of issuers from here, as any author of policies in one namespace can.
fn have_keys_fetched(lab: &Lab, from: &[SocketAddr]) -> Result<()> {
    let rules = from.iter().map(|address| {
        json!({
            "issuer": format!("https://{address}"),
            "jwksUri": format!("http://{address}/keys?key={SECRET}"),
        })
    });
    let object = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"namespace": "intruder", "name": "keys"},
        "spec": {"jwtRules": rules.collect::<Vec<_>>()},
    });
    lab.manifests().write_object("keys.yaml", &object)
}

/// Waits until an agent reports that it cannot fetch these keys, and why.
fn ensure_no_keys(agent: &Agent, from: SocketAddr, why: &str) -> Result<()> {
    let about = format!("http://{from}/");
    let is_told = |fault: &Value| {
        let message = fault["message"].as_str().unwrap_or_default();
        message.contains(&about) && message.contains(why)
    };
    eventually(
        SOON,
        &format!("no keys from {from}, because {why:?}"),
        || {
            let status = agent.ask("status").ok()?;
            status["faults"]
                .as_array()?
                .iter()
                .find(|fault| is_told(fault))?;
            Some(())
        },
    )
}

fn from_the_agent_to_a_port_with_a_probe(lab: &Lab) -> Result<()> {
    let target = Target::start(lab)?;
    let at = Family::ALL.map(|family| target.at(family, PROBE_PORT));
    let mark = LogMark::now(&target.agents);
    have_keys_fetched(lab, &at)?;
    for at in at {
        for agent in &target.agents {
            ensure_no_keys(agent, at, "does not accept a connection")?;
        }
        let decision = mark.decision_about(&target.agents, at)?;
        ensure!(decision.decided_by == STRICT, "{at}: {decision:?}");
    }
    target.ensure_unreached()?;
    let node = lab.node(NodeName::A)?;
    for at in at {
        let reply = get_from(&node, at)?;
        ensure!(reply.is_answer(), "the node's own probe at {at}: {reply:?}");
    }
    ensure_no_secrets(&target.agents)
}

fn from_the_agent_to_its_own_node(lab: &Lab) -> Result<()> {
    let target = Target::start(lab)?;
    let (node, links) = (lab.node(NodeName::A)?, NodeName::A.link_addresses());
    let link = Family::ALL.map(|family| SocketAddr::new(links.of(family), NODE_PORT));
    let loopback = ["127.0.0.1", "::1"].map(|address| Ok((address.parse::<IpAddr>()?, NODE_PORT)));
    let [v4, v6] = loopback.map(|at: Result<_>| at.map(SocketAddr::from));
    let all = [link[0], link[1], v4?, v6?];
    let server = LabServer::start(lab, &node, Mode::Http, &all)?;
    have_keys_fetched(lab, &all)?;
    for at in all {
        ensure_no_keys(&target.agents[0], at, "no address that policies may use")?;
    }
    // To the other node's agent this one is a host like any other.
    let other = NodeName::B.link_addresses();
    for connection in server.connections() {
        let peer = connection["accepted"].as_str().unwrap_or_default();
        let peer = peer.parse::<SocketAddr>()?.ip();
        let is_other = Family::ALL.iter().any(|family| peer == other.of(*family));
        ensure!(is_other, "the server was reached: {connection}");
    }
    ensure_no_secrets(&target.agents)
}

/// The part of a URL after `?` is not in any log or output.
fn ensure_no_secrets(agents: &[Agent]) -> Result<()> {
    for agent in agents {
        ensure!(!agent.log().contains(SECRET), "a secret is in the log");
        for verb in ["status", "workloads", "policies", "events"] {
            let shown = agent.ask(verb)?.to_string();
            ensure!(!shown.contains(SECRET), "{verb} shows a secret");
        }
        ensure!(!agent.metrics()?.contains(SECRET), "metrics show a secret");
    }
    Ok(())
}

fn at_the_agents_own_ports_from_outside(lab: &Lab) -> Result<()> {
    let target = Target::start(lab)?;
    for family in Family::ALL {
        for port in target.agents[0]
            .listener_ports("payments/payments")?
            .into_iter()
            .chain([15008])
        {
            let at = target.at(family, port);
            let reply = get_from(target.mesh.intruder.place(), at)?;
            ensure!(!reply.is_answer(), "{at}: {reply:?}");
        }
    }
    target.ensure_unreached()
}

fn at_the_agents_own_ports_from_inside(lab: &Lab) -> Result<()> {
    let target = Target::start(lab)?;
    let inside = target.mesh.payments.place();
    let mut tried = 0;
    for port in target.agents[0].listener_ports("payments/payments")? {
        for ip in ["127.0.0.1", "127.78.0.1", "::1"] {
            let at = SocketAddr::new(ip.parse()?, port);
            let reply = get_from(inside, at)?;
            ensure!(!reply.is_answer(), "{at}: {reply:?}");
            tried += 1;
        }
    }
    let status = target.agents[0].ask("status")?;
    let refused = status["kernel"]["loopback_refused"].as_u64();
    ensure!(refused >= Some(tried), "{tried} tried: {status}");
    target.ensure_unreached()
}

fn at_the_tunnel_port_from_a_pod_of_the_mesh(lab: &Lab) -> Result<()> {
    let target = Target::start(lab)?;
    for family in Family::ALL {
        let at = target.at(family, 15008);
        let reply = get_from(target.mesh.orders.place(), at)?;
        ensure!(reply.is_refusal(), "{at}: {reply:?}");
    }
    target.ensure_unreached()
}
