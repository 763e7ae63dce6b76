//! A server on node B, and who calls it: enrolled pods, pods that are not, and the nodes.

use std::net::SocketAddr;

use ambit_model::WorkloadIdentity;
use ambit_tests::{
    Agent, Dialer, Family, Lab, LabServer, Membership, Mode, NodeName, Pod, PodSpec, SOON,
    eventually,
};
use anyhow::{Context, Result};
use serde_json::Value;

use crate::verdict::Hook;

/// The server's name, and its namespace.
pub(crate) const SERVER: &str = "server";

/// The address on which it listens.
pub(crate) const PORTS: [u16; 4] = [8080, 8081, 9090, 7000];

/// The file of the policies.
const POLICIES_FILE: &str = "policies.yaml";

/// Enrolled pods: name, namespace, service account, node.
const ENROLLED: [(&str, &str, &str, NodeName); 4] = [
    ("one", "alpha", "default", NodeName::A),
    ("two", "beta", "default", NodeName::A),
    ("three", "beta", "reader", NodeName::A),
    ("four", "gamma", "default", NodeName::B),
];

/// Pods that are not.
const OUTSIDERS: [(&str, NodeName); 2] = [("far", NodeName::A), ("near", NodeName::B)];

/// Everything is up.
pub(crate) struct Site {
    pub(crate) server: Pod,
    pub(crate) callers: Vec<Caller>,
    /// Of the server's node.
    pub(crate) agent: Agent,
    _other: Agent,
    _listening: LabServer,
}

/// Somebody who calls.
pub(crate) struct Caller {
    pub(crate) name: String,
    /// `None`: what it sends is plaintext.
    pub(crate) identity: Option<WorkloadIdentity>,
    pub(crate) dialer: Dialer,
}

impl Caller {
    /// The hook at which the kernel judges its connections.
    pub(crate) fn hook(&self) -> Hook {
        match self.identity {
            Some(_) => Hook::Delivery,
            None => Hook::Lookup,
        }
    }
}

impl Site {
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let manifests = lab.manifests();
        let server = lab.add_pod(NodeName::B, PodSpec::named(SERVER))?;
        manifests.write_namespace(SERVER, Membership::Ambient)?;
        manifests.write_pod(&server)?;
        let mut callers = Vec::new();
        for (name, namespace, account, node) in ENROLLED {
            callers.push(enrolled(lab, name, namespace, account, node)?);
        }
        for (name, node) in OUTSIDERS {
            let pod = lab.add_pod(node, PodSpec::named(name))?;
            manifests.write_namespace(name, Membership::None)?;
            manifests.write_pod(&pod)?;
            callers.push(plaintext(name, Dialer::start(lab, pod.place())?));
        }
        for node in NodeName::ALL {
            let dialer = Dialer::start(lab, &lab.node(node)?)?;
            callers.push(plaintext(node.as_str(), dialer));
        }
        let [other, agent] = lab.start_agents()?;
        let addresses = Family::ALL.map(|family| PORTS.map(|port| at(&server, family, port)));
        Ok(Self {
            _listening: LabServer::start(
                lab,
                server.place(),
                Mode::Banner,
                addresses.as_flattened(),
            )?,
            server,
            callers,
            agent,
            _other: other,
        })
    }

    /// An address of the server.
    pub(crate) fn at(&self, family: Family, port: u16) -> SocketAddr {
        at(&self.server, family, port)
    }

    /// Has other policies take the place of those that are there, and waits until they are in force.
    /// One of the new ones has this name, which no other set had.
    pub(crate) fn apply(&self, lab: &Lab, name: &str, policies: &[Value]) -> Result<()> {
        let documents = policies.iter().map(serde_norway::to_string);
        let documents: Vec<String> = documents.collect::<Result<_, _>>()?;
        lab.manifests()
            .write(POLICIES_FILE, &documents.join("---\n"))?;
        let marker = format!("istio-system/{name}");
        eventually(SOON, &format!("{name} in force"), || {
            let shown = self.agent.ask("policies").ok()?;
            let mut shown = shown.as_array()?.iter();
            shown.find(|policy| policy["name"] == marker.as_str())?;
            Some(())
        })
    }
}

fn at(server: &Pod, family: Family, port: u16) -> SocketAddr {
    (server.ip(family), port).into()
}

fn enrolled(
    lab: &Lab,
    name: &'static str,
    namespace: &'static str,
    account: &str,
    node: NodeName,
) -> Result<Caller> {
    let spec = PodSpec {
        namespace,
        ..PodSpec::named(name)
    };
    let pod = lab.add_pod(node, spec)?;
    let mut manifest = pod.manifest();
    manifest["spec"]["serviceAccountName"] = account.into();
    lab.manifests()
        .write_namespace(namespace, Membership::Ambient)?;
    lab.manifests().write_object(&pod.file_name(), &manifest)?;
    let identity = format!("cluster.local/ns/{namespace}/sa/{account}").parse();
    Ok(Caller {
        name: name.to_owned(),
        identity: Some(identity.context("no identity")?),
        dialer: Dialer::start(lab, pod.place())?,
    })
}

fn plaintext(name: &str, dialer: Dialer) -> Caller {
    Caller {
        name: name.to_owned(),
        identity: None,
        dialer,
    }
}
