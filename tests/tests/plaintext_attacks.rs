//! Plaintext against a pod that demands mutual TLS. Each attack is refused, the server does not
//! notice it, and the log says what refused it.

use std::net::SocketAddr;
use std::process::ExitCode;

use ambit_tests::{
    Agent, Family, Lab, LabServer, LogMark, Mode, NodeName, Place, Reference, get_from, run_tests,
    tests,
};
use anyhow::{Result, ensure};

const PORT: u16 = Reference::PORT;
const PROBE_PORT: u16 = Reference::PROBE_PORT;
/// No object declares it.
const UNDECLARED_PORT: u16 = 9999;
const STRICT: &str = "PeerAuthentication istio-system/default";

fn main() -> ExitCode {
    run_tests(tests![
        from_a_pod_outside_the_mesh,
        by_the_address_of_the_service,
        from_the_node_to_a_port_without_a_probe,
        from_the_node_to_a_port_with_a_probe_is_allowed,
        from_a_pod_in_the_nodes_network_to_a_port_with_a_probe,
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
