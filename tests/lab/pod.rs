//! Pods.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::place::Place;
use crate::plan::{Addresses, Family, NodeName};

/// Whether a namespace or a pod is opted in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Membership {
    /// Opted in.
    Ambient,
    /// Opted out.
    None,
}

impl Membership {
    /// The value of the label `istio.io/dataplane-mode`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Ambient => "ambient",
            Self::None => "none",
        }
    }
}

/// The specification of a pod.
#[derive(Clone, Copy, Debug)]
pub struct PodSpec {
    /// `metadata.namespace`, whose service account `default` it uses.
    pub namespace: &'static str,
    /// `metadata.name`, and its label `app`. Unique in the lab.
    pub name: &'static str,
    /// The port of its liveness probe.
    pub probe_port: Option<u16>,
}

impl PodSpec {
    /// A pod without a probe, in a namespace of the same name.
    pub fn named(name: &'static str) -> Self {
        Self {
            namespace: name,
            name,
            probe_port: None,
        }
    }
}

/// A pod: its own network namespace and control group on a node.
#[derive(Clone, Debug)]
pub struct Pod {
    spec: PodSpec,
    node: NodeName,
    addresses: Addresses,
    place: Place,
}

impl Pod {
    pub(crate) fn new(spec: PodSpec, node: NodeName, addresses: Addresses, place: Place) -> Self {
        Self {
            spec,
            node,
            addresses,
            place,
        }
    }

    /// `metadata.name`.
    pub fn name(&self) -> &'static str {
        self.spec.name
    }

    /// `metadata.namespace`.
    pub fn namespace(&self) -> &'static str {
        self.spec.namespace
    }

    /// The node that it runs on.
    pub fn node(&self) -> NodeName {
        self.node
    }

    /// Of both agents, its node's.
    pub fn agent<'a>(&self, [a, b]: &'a [Agent; 2]) -> &'a Agent {
        match self.node {
            NodeName::A => a,
            NodeName::B => b,
        }
    }

    /// Of both agents, its node's, and then the other.
    pub fn agent_of(&self, [a, b]: [Agent; 2]) -> (Agent, Agent) {
        match self.node {
            NodeName::A => (a, b),
            NodeName::B => (b, a),
        }
    }

    /// `status.podIPs`.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// One of them.
    pub fn ip(&self, family: Family) -> IpAddr {
        self.addresses.of(family)
    }

    /// A port at its IPv4 address.
    pub fn at(&self, port: u16) -> SocketAddr {
        (self.addresses.v4, port).into()
    }

    /// The place of its processes.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// A command that will run in the pod.
    ///
    /// # Errors
    ///
    /// If the pod is gone.
    pub fn command(&self, program: &str) -> Result<Command> {
        self.place.command(program)
    }

    /// The file of the configuration that describes it.
    pub fn file_name(&self) -> String {
        format!("pod-{}-{}.yaml", self.spec.namespace, self.spec.name)
    }

    /// The Pod object, ready.
    pub fn manifest(&self) -> Value {
        let PodSpec {
            namespace,
            name,
            probe_port,
        } = self.spec;
        let mut container = json!({"name": name, "image": name});
        if let Some(port) = probe_port {
            container["livenessProbe"] = json!({"tcpSocket": {"port": port}});
        }
        let [v4, v6] = self.addresses.texts();
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "namespace": namespace,
                "name": name,
                "labels": {"app": name},
                "annotations": {"ambit.mesh/netns": self.place.netns().path()},
            },
            "spec": {
                "nodeName": self.node.as_str(),
                "serviceAccountName": "default",
                "containers": [container],
            },
            "status": {
                "phase": "Running",
                "podIP": v4,
                "podIPs": [{"ip": v4}, {"ip": v6}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        })
    }
}
