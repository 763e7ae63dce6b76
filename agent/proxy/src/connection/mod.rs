//! The context of a connection: what the proxy knows of it, from its accept to its line in the access log.

pub(crate) mod events;
pub(crate) mod refusal;
pub(crate) mod registry;
pub(crate) mod report;
pub(crate) mod stats;

use std::cell::Cell;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use serde::Serialize;
use tokio::net::TcpStream;

use self::registry::Registration;
use crate::shard::pod::ServedPod;
use crate::verdict::Requirement;
use ambit_datapath::DeliveryCaller;
use ambit_model::{ApplicationAddress, CallerAddress, ObjectName, WorkloadIdentity};
use ambit_policy::{ConnectionAttributes, RequestAttributes};
use ambit_relay::{Meter, Party};

/// The direction of a connection as the pod sees it, and for outbound connections who opened it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionDirection {
    /// Opened by one of the pod's processes.
    Outbound,
    /// To the pod's application.
    Inbound,
    /// Opened by the agent on behalf of the pod, to consult an external authorizer.
    Authorizer,
}

/// How a connection travels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// Through an HBONE tunnel.
    Tunnel,
    /// From socket to socket in the agent, which serves both pods.
    Handoff,
    /// In plaintext.
    Plaintext,
    /// From a pod to itself, inside its network namespace.
    OwnPod,
}

/// One end of a connection, as logs and listings show it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ConnectionEnd {
    /// The pod, if the model knows it.
    pub workload: Option<ObjectName>,
    /// The verified identity. For the destination of an outbound connection: the identity that it
    /// has to prove.
    pub identity: Option<WorkloadIdentity>,
    /// The address; port 0 if the port is not known.
    pub address: SocketAddr,
}

/// What the proxy knows of one connection: everything that judges, logs, counts or denies it starts here.
///
/// Only tests have a `P` other than [`ServedPod`].
pub(crate) struct ConnectionContext<P = ServedPod> {
    /// The pod that the agent serves.
    pub(crate) pod: Rc<P>,
    pub(crate) direction: ConnectionDirection,
    /// `None` if the connection is refused before its path is chosen.
    pub(crate) path: Option<Path>,
    pub(crate) source: ConnectionEnd,
    pub(crate) destination: ConnectionEnd,
    /// Counts the payload. The halves of a connection that is handed from pod to pod share it.
    pub(crate) meter: Meter,
    /// When the connection was accepted, or begun by the agent.
    pub(crate) started: Instant,
    /// The number in the registry, unique within the shard; `None` if the connection is not registered.
    pub(crate) number: Cell<Option<u64>>,
}

/// What the proxy knows of one request on a connection.
pub(crate) struct RequestContext {
    pub(crate) connection: Rc<ConnectionContext>,
    /// The attributes by which policies judge it.
    pub(crate) attributes: Rc<RequestAttributes>,
    /// When its head was complete.
    pub(crate) started: Instant,
}

/// A connection to the pod's own application, as it is accepted.
pub(crate) struct ToApplication {
    pub(crate) pod: Rc<ServedPod>,
    pub(crate) direction: ConnectionDirection,
    pub(crate) path: Path,
    pub(crate) caller: DeliveryCaller,
    pub(crate) to: ApplicationAddress,
    pub(crate) started: Instant,
}

impl From<ToApplication> for ConnectionContext {
    fn from(accepted: ToApplication) -> Self {
        let ToApplication {
            pod,
            direction,
            path,
            caller,
            to: ApplicationAddress(to),
            started,
        } = accepted;
        Self {
            direction,
            path: Some(path),
            source: ConnectionEnd {
                workload: caller_workload(&pod, &caller),
                identity: caller.identity,
                address: caller.address.0,
            },
            destination: pod.connection_end(to),
            meter: Meter::default(),
            started,
            number: Cell::default(),
            pod,
        }
    }
}

impl ConnectionContext {
    /// Registers the connection. It goes on while `requirement` holds.
    pub(crate) fn register(self: &Rc<Self>, requirement: Requirement) -> Registration {
        let registration = self.pod.registry.register(Rc::clone(self), requirement);
        self.number.set(Some(registration.number()));
        registration
    }

    /// Replaces what has to hold for the connection to go on.
    pub(crate) fn require(&self, requirement: Requirement) {
        if let Some(number) = self.number.get() {
            self.pod.registry.require(number, requirement);
        }
    }

    /// Whether one of the connection's parties, which has ended its sending, has closed its socket. `false` if
    /// this cannot be known, as for a party outside the pod.
    pub(crate) fn has_closed(&self, party: Party, stream: &TcpStream) -> bool {
        let is_in_pod = match (self.path, self.direction, party) {
            (Some(Path::OwnPod), _, _) => true,
            (_, ConnectionDirection::Outbound, Party::Client) => true,
            (_, ConnectionDirection::Inbound, Party::Server) => true,
            (_, ConnectionDirection::Outbound, Party::Server)
            | (_, ConnectionDirection::Inbound, Party::Client)
            | (_, ConnectionDirection::Authorizer, _) => false,
        };
        is_in_pod && self.pod.datapath.application_has_closed(stream)
    }

    /// The caller of the pod's application, as far as it is authenticated.
    pub(crate) fn caller(&self) -> DeliveryCaller {
        DeliveryCaller {
            identity: self.source.identity.clone(),
            address: CallerAddress(self.source.address),
        }
    }

    /// The attributes by which policies judge the connection.
    pub(crate) fn attributes(&self) -> ConnectionAttributes {
        ConnectionAttributes {
            identity: self.source.identity.clone(),
            source: self.source.address.ip(),
            destination: self.destination.address,
        }
    }
}

impl<P> fmt::Debug for ConnectionContext<P> {
    /// Leaves out the pod, whose registry has this context again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionContext")
            .field("direction", &self.direction)
            .field("path", &self.path)
            .field("source", &self.source)
            .field("destination", &self.destination)
            .field("number", &self.number.get())
            .finish_non_exhaustive()
    }
}

/// Returns the pod that the model has at the caller's address. If the caller proved an identity, the
/// pod's has to be the same.
fn caller_workload(pod: &ServedPod, caller: &DeliveryCaller) -> Option<ObjectName> {
    let view = pod.view();
    view.snapshot
        .by_address(caller.address.ip())
        .filter(|found| {
            caller
                .identity
                .as_ref()
                .is_none_or(|own| *own == found.identity)
        })
        .map(|found| found.name.clone())
}

/// Returns the address, as IPv4 if it is an IPv4-mapped IPv6 address.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl ConnectionEnd {
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
            Self::Handoff => "handoff",
            Self::Plaintext => "plaintext",
            Self::OwnPod => "own-pod",
        }
    }
}
