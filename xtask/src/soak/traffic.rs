//! The calls, their callers, and the expected results.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ambit_tests::{
    Agent, Family, HeldConnection, Lab, LabServer, Mode, NodeName, Place, Pod, Reference, Reply,
    Swarm, SwarmServer, get_from,
};
use anyhow::Result;

/// Of the server that sends back what it gets.
const ECHO_PORT: u16 = 9000;

/// What has to come of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expected {
    Answer,
    Refusal,
}

/// One kind of call.
pub(super) struct Kind<'a> {
    name: &'static str,
    from: &'a Place,
    to: SocketAddr,
    expected: Expected,
}

/// Everything that calls and is called for the whole time.
pub(super) struct Stage {
    mesh: Reference,
    agents: [Agent; 2],
    outside: SocketAddr,
    _servers: [LabServer; 3],
    _echo: SwarmServer,
}

/// Calls by kind: how many ended as expected, and how many did not.
#[derive(Clone, Default, Debug)]
pub(super) struct Tally(BTreeMap<&'static str, (u64, u64)>);

impl Expected {
    pub(super) fn is_met_by(self, reply: &Reply) -> bool {
        match self {
            Self::Answer => reply.is_answer(),
            Self::Refusal => reply.is_refusal(),
        }
    }
}

impl Stage {
    pub(super) fn build(lab: &Lab) -> Result<Self> {
        let (mesh, agents) = Reference::start(lab)?;
        let (port, node) = (Reference::PORT, lab.node(NodeName::B)?);
        let outside = SocketAddr::new(NodeName::B.link_addresses().of(Family::V4), port);
        let echo = mesh.orders.at(ECHO_PORT);
        Ok(Self {
            _servers: [
                LabServer::in_pod(lab, &mesh.orders, Mode::Http, port)?,
                LabServer::in_pod(lab, &mesh.payments, Mode::Http, port)?,
                LabServer::start(lab, &node, Mode::Http, &[outside])?,
            ],
            _echo: SwarmServer::start(lab, mesh.orders.place(), echo)?,
            mesh,
            agents,
            outside,
        })
    }

    pub(super) fn agents(&self) -> &[Agent] {
        &self.agents
    }

    pub(super) fn caller(&self) -> &Place {
        self.mesh.frontend.place()
    }

    /// A connection that stands.
    pub(super) fn hold(&self, lab: &Lab) -> Result<HeldConnection> {
        let mut held = HeldConnection::open(lab, self.caller(), self.mesh.orders.at(ECHO_PORT))?;
        held.echo("hello")?;
        Ok(held)
    }

    /// Kills both agents, one after the other, and starts others.
    pub(super) fn replace_agents(&mut self, lab: &Lab) -> Result<()> {
        for (agent, node) in self.agents.iter_mut().zip(NodeName::ALL) {
            agent.kill_at_once()?;
            *agent = lab.start_agent(node)?;
        }
        Ok(())
    }

    /// Makes each of the calls once.
    pub(super) fn call_once(&self) -> Result<Tally> {
        let mut tally = Tally::default();
        for kind in self.kinds() {
            tally.add(&kind.call()?);
        }
        Ok(tally)
    }

    /// New connections in quick succession.
    pub(super) fn swarm(&self, lab: &Lab, time: Duration) -> Result<Swarm> {
        Swarm::churn(lab, self.caller(), self.mesh.orders.at(ECHO_PORT), time)
    }

    /// The calls that go on all the time.
    pub(super) fn kinds(&self) -> [Kind<'_>; 7] {
        let Reference {
            frontend,
            orders,
            payments,
            intruder,
            ..
        } = &self.mesh;
        let v6 = |pod: &Pod| SocketAddr::new(pod.ip(Family::V6), Reference::PORT);
        let port = Reference::PORT;
        [
            Kind::new("IPv4", frontend.place(), orders.at(port), Expected::Answer),
            Kind::new("IPv6", orders.place(), v6(payments), Expected::Answer),
            Kind::new(
                "Service",
                frontend.place(),
                self.mesh.orders_service.at(),
                Expected::Answer,
            ),
            Kind::new("outside", frontend.place(), self.outside, Expected::Answer),
            Kind::new(
                "denied",
                frontend.place(),
                payments.at(port),
                Expected::Refusal,
            ),
            Kind::new(
                "denied back",
                payments.place(),
                v6(orders),
                Expected::Refusal,
            ),
            Kind::new(
                "plaintext",
                intruder.place(),
                orders.at(port),
                Expected::Refusal,
            ),
        ]
    }
}

impl<'a> Kind<'a> {
    fn new(name: &'static str, from: &'a Place, to: SocketAddr, expected: Expected) -> Self {
        Self {
            name,
            from,
            to,
            expected,
        }
    }

    /// Calls repeatedly until told to stop.
    pub(super) fn run(self, stop: &AtomicBool) -> Result<Tally> {
        let mut tally = Tally::default();
        while !stop.load(Ordering::Relaxed) {
            tally.add(&self.call()?);
        }
        Ok(tally)
    }

    fn call(&self) -> Result<Tally> {
        let mut tally = Tally::default();
        tally.judge(self.name, self.expected, &get_from(self.from, self.to)?);
        Ok(tally)
    }
}

impl Tally {
    pub(super) fn judge(&mut self, kind: &'static str, expected: Expected, reply: &Reply) {
        if expected.is_met_by(reply) {
            return self.count(kind, 1, 0);
        }
        eprintln!("error: {kind}: expected {expected:?}, got {reply:?}");
        self.count(kind, 0, 1);
    }

    pub(super) fn count(&mut self, kind: &'static str, expected: u64, unexpected: u64) {
        let counts = self.0.entry(kind).or_default();
        counts.0 += expected;
        counts.1 += unexpected;
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (kind, (expected, unexpected)) in &other.0 {
            self.count(kind, *expected, *unexpected);
        }
    }

    /// Whether every call ended as expected, and there were some of each kind.
    pub(super) fn is_clean(&self) -> bool {
        let mut counts = self.0.values();
        counts.all(|(expected, unexpected)| *expected > 0 && *unexpected == 0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<String> = self
            .0
            .iter()
            .map(|(kind, (expected, unexpected))| match unexpected {
                0 => format!("{kind} {expected}"),
                _ => format!("{kind} {expected} ({unexpected} NOT AS EXPECTED)"),
            })
            .collect();
        f.write_str(&kinds.join(", "))
    }
}
