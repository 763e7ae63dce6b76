//! What a connection is about: which way it goes, over which path, between whom.

pub(crate) mod events;
pub(crate) mod refusal;
pub(crate) mod registry;
pub(crate) mod report;
pub(crate) mod stats;

use std::net::SocketAddr;

use serde::Serialize;

use ambit_model::{ObjectName, WorkloadIdentity};

/// On whose side of a connection the pod is that the agent serves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionDirection {
    /// One of the pod's processes opened it.
    Outbound,
    /// It is for the pod's application.
    Inbound,
    /// The agent opened it for the pod, to ask an external authorizer.
    Authorizer,
}

/// How a connection travels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// Through an HBONE tunnel.
    Tunnel,
    /// In plaintext.
    Plaintext,
    /// From a pod to itself, inside its network namespace.
    OwnPod,
}

/// One end of a connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Party {
    /// The pod, where it is known.
    pub workload: Option<ObjectName>,
    /// Its verified identity; of an outbound connection's destination, the identity that it has to
    /// prove.
    pub identity: Option<WorkloadIdentity>,
    /// Its address; port 0 where the port is not known.
    pub address: SocketAddr,
}

/// What a connection is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Subject {
    /// Which way it goes.
    pub direction: ConnectionDirection,
    /// How it travels; `None` where it was refused before that was decided.
    pub path: Option<Path>,
    /// Who opened it.
    pub source: Party,
    /// Who it is for.
    pub destination: Party,
}

impl Party {
    /// An end of which only the address is known.
    pub(crate) fn unknown(address: SocketAddr) -> Self {
        Self {
            workload: None,
            identity: None,
            address,
        }
    }
}

impl ConnectionDirection {
    /// The word that logs and metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
            Self::Authorizer => "authorizer",
        }
    }
}

impl Path {
    /// The word that logs and metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Plaintext => "plaintext",
            Self::OwnPod => "own-pod",
        }
    }
}
