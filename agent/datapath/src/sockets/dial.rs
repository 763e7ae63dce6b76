//! Connections that the agent opens from inside a pod's network namespace.
//!
//! Each is made under a ticket, and the kernel's verdict decides what happens to it. Bytes reach an
//! application only through an [`AuthorizedStream`], which only an ALLOW verdict or a [`Permit`] makes, or
//! through a [`super::request_stream::RequestStream`], one request for each permit.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ambit_common::{
    HBONE_PORT, IpFamily, ListenerCheck, MAX_SHARDS, NetnsCookie, PolicySetId, Reason, RecordKind,
    SocketRecord, Ticket, TicketKind, TicketVerdict,
};
use aya::maps::{MapData, MapError, SkStorage};
use socket2::Socket;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::policy::PolicyTables;
use crate::sockets::application::ApplicationSockets;
use crate::sockets::failed::FailedTable;
use crate::sockets::request_stream::RequestStream;
use crate::sockets::stock::SocketStock;
use crate::sockets::ticket::{TicketedConnect, Tickets};
use crate::sockets::unheard::pace::{KeptAnswer, LookTurn};
use crate::sockets::unheard::{Missable, Unheard};
use crate::{DatapathError, Pins};
use ambit_model::{
    ApplicationAddress, CallerAddress, ObjectName, OriginalDestination, WorkloadIdentity,
};
use ambit_policy::{Decider, Layer, Permit};

/// How many tickets a delivery may use if the pod's policies keep changing.
const STALE_ATTEMPTS: usize = 3;

/// One shard's handles of the kernel's maps.
#[derive(Debug)]
pub struct ShardMaps {
    tickets: Tickets,
    sockets: SkStorage<MapData, SocketRecord>,
    pub(crate) failed: FailedTable,
}

impl ShardMaps {
    /// Opens the maps.
    ///
    /// # Errors
    /// [`DatapathError::Map`] if a map cannot be opened.
    pub fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self {
            tickets: Tickets::open(pins)?,
            sockets: pins.socket_storage("SOCKETS")?,
            failed: FailedTable::open(pins)?,
        })
    }
}

/// A pod as one shard of the proxy sees it. It is the only way to open connections in the pod's network
/// namespace, each under a ticket for this pod. It stays on its shard's thread.
#[derive(Clone)]
pub struct PodDatapath(Rc<PodOnShard>);

struct PodOnShard {
    applications: ApplicationSockets,
    parts: PodDatapathParts,
    /// Which listeners the connect hook's look-up may miss.
    missable: KeptAnswer,
}

/// The parts of a [`PodDatapath`], which are sent to the shard's thread.
pub struct PodDatapathParts {
    /// The pod's name.
    pub pod: ObjectName,
    /// Its network namespace.
    pub netns: NetnsCookie,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The ports of the agent's listeners in the pod, by kind and shard.
    pub ports: [[u16; MAX_SHARDS]; 3],
    /// Sockets that were made inside the pod's network namespace.
    pub stock: SocketStock,
    /// The shard's maps.
    pub maps: Arc<ShardMaps>,
    /// The policy tables.
    pub tables: PolicyTables,
    /// The agent's turn to look at listeners.
    pub(crate) look_turn: LookTurn,
    /// How long a connect may take.
    pub connect_timeout: Duration,
}

/// The caller for whom a delivery is made, as far as it was authenticated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeliveryCaller {
    /// The verified identity; `None` for plaintext.
    pub identity: Option<WorkloadIdentity>,
    /// The address from which it dialled.
    pub address: CallerAddress,
}

/// A connection to a pod's application.
#[derive(Debug)]
pub enum Delivery {
    /// The kernel allowed it.
    Allowed(AuthorizedStream),
    /// The evaluator in userspace has to decide.
    Ask(UnjudgedStream),
}

/// A connection to an application that policy allows. Only the kernel's verdict or a [`Permit`] makes one.
#[derive(Debug)]
pub struct AuthorizedStream {
    stream: TcpStream,
    layer: Layer,
    decider: Option<Decider>,
}

impl AuthorizedStream {
    /// Returns the rule that allowed it; `None` if no ALLOW policy applies.
    pub fn decider(&self) -> Option<&Decider> {
        self.decider.as_ref()
    }

    /// Returns whether the kernel or the proxy allowed it.
    pub fn layer(&self) -> Layer {
        self.layer
    }

    /// Returns the connection.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Lets only requests pass, each with its own permit, although policy allows more.
    pub fn per_request(self) -> RequestStream {
        UnjudgedStream(self.stream).per_request()
    }
}

/// A connection to an application that policy has not allowed yet: no byte can pass.
#[derive(Debug)]
pub struct UnjudgedStream(pub(crate) TcpStream);

impl UnjudgedStream {
    /// Lets bytes pass, as the evaluator has permitted.
    pub fn authorize(self, permit: Permit) -> AuthorizedStream {
        AuthorizedStream {
            stream: self.0,
            layer: Layer::Proxy,
            decider: permit.into_decider(),
        }
    }
}

/// Why a connection was not opened.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The kernel denied it.
    #[error("denied by the kernel: {}", reason.as_str())]
    Denied {
        /// Why.
        reason: Reason,
        /// The policy set that decided.
        policy_set: PolicySetId,
        /// The alternative that decided.
        alternative: u32,
    },
    /// The other end refused the connection, or cannot be reached.
    #[error("{to} cannot be connected to: {source}")]
    Unreachable {
        /// What was dialled.
        to: SocketAddr,
        /// connect(2)'s error.
        source: io::Error,
    },
    /// The policies do not deny it, but no socket listens there.
    #[error("nothing listens at {to}")]
    NothingListens {
        /// What was dialled.
        to: SocketAddr,
    },
    /// The other end did not answer in time.
    #[error("{to} did not answer within {timeout:?}")]
    TimedOut {
        /// What was dialled.
        to: SocketAddr,
        /// How long it had.
        timeout: Duration,
    },
    /// The pod's policies kept changing.
    #[error(
        "the pod's policies changed {STALE_ATTEMPTS} times while the kernel was asked for a verdict"
    )]
    Stale,
    /// The connect hook did not see the connect.
    #[error(
        "the kernel gave no verdict on a connection of the agent; is its cgroup still attached?"
    )]
    NoVerdict,
    /// The policy maps could not be prepared for the caller.
    #[error("the policy tables could not be prepared: {0}")]
    Tables(#[source] DatapathError),
    /// A socket operation of the agent failed.
    #[error("a socket of the agent failed: {0}")]
    Socket(#[source] io::Error),
}

impl fmt::Debug for PodDatapathParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodDatapathParts")
            .field("pod", &self.pod)
            .field("netns", &self.netns)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PodDatapath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.parts.fmt(f)
    }
}

impl PodDatapath {
    /// Makes a pod for one shard.
    pub fn new(parts: PodDatapathParts) -> Self {
        Self(Rc::new(PodOnShard {
            applications: ApplicationSockets::new(parts.stock.netns().clone()),
            parts,
            missable: KeptAnswer::default(),
        }))
    }

    /// Returns the pod's name.
    pub fn pod(&self) -> &ObjectName {
        &self.0.parts.pod
    }

    /// Returns the pod's network namespace.
    pub fn netns(&self) -> NetnsCookie {
        self.0.parts.netns
    }

    pub(crate) fn maps(&self) -> &ShardMaps {
        &self.0.parts.maps
    }

    /// Returns the pod's addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.0.parts.addresses
    }

    /// Whether `port` is HBONE's, or the port of a listener of the agent in this pod.
    pub fn owns_port(&self, port: u16) -> bool {
        port == HBONE_PORT
            || (port != 0 && self.0.parts.ports.iter().flatten().any(|&own| own == port))
    }

    /// Returns the destination that a process of the pod dialled, as the kernel recorded it for a connection
    /// that an outbound listener accepted. `None`: the kernel did not redirect the connection; close it.
    pub fn original_destination(&self, accepted: &TcpStream) -> Option<OriginalDestination> {
        let record = self.record(accepted)?;
        match record.kind()? {
            RecordKind::OutboundAccepted => Some(OriginalDestination(record.endpoint.into())),
            RecordKind::OutboundClient
            | RecordKind::DeliveryClient
            | RecordKind::DeliveryAccepted
            | RecordKind::Node
            | RecordKind::LocalClient => None,
        }
    }

    /// Whether the pod's application at the other end of `stream`, which has sent its FIN, has closed its socket.
    /// `false` if the kernel cannot tell.
    pub fn application_has_closed(&self, stream: &TcpStream) -> bool {
        let (Ok(local), Ok(remote)) = (stream.peer_addr(), stream.local_addr()) else {
            return false;
        };
        let closed = self.0.applications.is_closed(local, remote);
        closed.unwrap_or_else(|error| {
            tracing::debug!(pod = %self.0.parts.pod, %error, "an application's socket cannot be looked up");
            false
        })
    }

    fn record(&self, socket: &TcpStream) -> Option<SocketRecord> {
        match self.0.parts.maps.sockets.get(socket, 0) {
            Ok(record) => Some(record),
            Err(MapError::KeyNotFound) => None,
            Err(error) => {
                tracing::warn!(pod = %self.0.parts.pod, %error, "a connection's record cannot be read");
                None
            }
        }
    }

    /// Connects to another pod's HBONE port.
    ///
    /// # Errors
    /// [`DialError`]. The caller must not connect to the pod in any other way.
    pub async fn dial_tunnel(&self, to: SocketAddr) -> Result<TcpStream, DialError> {
        self.dial(TicketKind::Tunnel, to).await
    }

    /// Connects in plaintext to an endpoint that is not opted in.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial_plaintext(&self, to: SocketAddr) -> Result<TcpStream, DialError> {
        self.dial(TicketKind::Plaintext, to).await
    }

    async fn dial(&self, kind: TicketKind, to: SocketAddr) -> Result<TcpStream, DialError> {
        let socket = self.take_socket(to)?;
        let ticket = Ticket::new(kind, self.0.parts.netns, to.into());
        let answer = self.connect(&socket, to, ticket)?;
        match TicketVerdict::from_u8(answer.ticket.verdict) {
            TicketVerdict::Allow => self.established(socket, to, answer.connect).await,
            TicketVerdict::Pending => Err(DialError::NoVerdict),
            TicketVerdict::Deny
            | TicketVerdict::Ask
            | TicketVerdict::Stale
            | TicketVerdict::NothingListens => Err(denied(&answer.ticket)),
        }
    }

    /// Connects to the pod's application at `to` on behalf of `caller`, if policy allows it. The application
    /// sees the caller's address.
    ///
    /// # Errors
    /// [`DialError::Denied`] with the reason; another [`DialError`] if the application cannot be reached.
    pub async fn deliver(
        &self,
        caller: &DeliveryCaller,
        to: ApplicationAddress,
    ) -> Result<Delivery, DialError> {
        let ApplicationAddress(to) = to;
        match self.deliver_once(caller, to, ListenerCheck::LookUp).await {
            Err(DialError::NothingListens { .. }) if self.unheard(to).await == Unheard::Perhaps => {
                self.deliver_once(caller, to, ListenerCheck::Skip).await
            }
            other => other,
        }
    }

    /// What it means that the hook's look-up found no listener at `to`.
    async fn unheard(&self, to: SocketAddr) -> Unheard {
        let parts = &self.0.parts;
        let netns = parts.stock.netns().clone();
        let look = move || Missable::find(&netns);
        self.0.missable.about(to, &parts.look_turn, look).await
    }

    async fn deliver_once(
        &self,
        caller: &DeliveryCaller,
        to: SocketAddr,
        listener_check: ListenerCheck,
    ) -> Result<Delivery, DialError> {
        for _ in 0..STALE_ATTEMPTS {
            let (identity, generation) = self
                .0
                .parts
                .tables
                .admit_peer(self.0.parts.netns, caller.identity.as_ref())
                .map_err(DialError::Tables)?;
            let socket = self.take_socket(to)?;
            let mut ticket = Ticket::new(TicketKind::Delivery, self.0.parts.netns, to.into());
            ticket.identity = identity;
            ticket.generation = generation;
            ticket.caller = caller.address.into();
            ticket.listener_check = listener_check as u8;
            let answer = self.connect(&socket, to, ticket)?;
            return match TicketVerdict::from_u8(answer.ticket.verdict) {
                TicketVerdict::Allow => {
                    let stream = self.established(socket, to, answer.connect).await?;
                    Ok(Delivery::Allowed(AuthorizedStream {
                        stream,
                        layer: Layer::Kernel,
                        decider: self.decider(&answer.ticket),
                    }))
                }
                TicketVerdict::Ask => {
                    let stream = self.established(socket, to, answer.connect).await?;
                    Ok(Delivery::Ask(UnjudgedStream(stream)))
                }
                TicketVerdict::Deny => Err(denied(&answer.ticket)),
                TicketVerdict::Pending => Err(DialError::NoVerdict),
                TicketVerdict::NothingListens => Err(DialError::NothingListens { to }),
                TicketVerdict::Stale => continue,
            };
        }
        Err(DialError::Stale)
    }

    fn decider(&self, ticket: &Ticket) -> Option<Decider> {
        let tables = &self.0.parts.tables;
        tables.decider(ticket.policy_set, ticket.alternative)
    }

    fn take_socket(&self, to: SocketAddr) -> Result<Socket, DialError> {
        let family = if to.is_ipv4() {
            IpFamily::V4
        } else {
            IpFamily::V6
        };
        self.0.parts.stock.take(family).map_err(DialError::Socket)
    }

    fn connect(
        &self,
        socket: &Socket,
        to: SocketAddr,
        ticket: Ticket,
    ) -> Result<TicketedConnect, DialError> {
        self.0
            .parts
            .maps
            .tickets
            .connect(socket, to, ticket)
            .map_err(DialError::Socket)
    }

    async fn established(
        &self,
        socket: Socket,
        to: SocketAddr,
        connect: io::Result<()>,
    ) -> Result<TcpStream, DialError> {
        let unreachable = |source| DialError::Unreachable { to, source };
        connect.map_err(unreachable)?;
        let stream = TcpStream::from_std(socket.into()).map_err(DialError::Socket)?;
        let timeout = self.0.parts.connect_timeout;
        let interest = Interest::WRITABLE | Interest::ERROR;
        let ready = match tokio::time::timeout(timeout, stream.ready(interest)).await {
            Err(_) => return Err(DialError::TimedOut { to, timeout }),
            Ok(ready) => ready.map_err(DialError::Socket)?,
        };
        // The kernel shows a connect that has failed as an error and as the end of both directions.
        if (ready.is_error() || ready.is_write_closed())
            && let Some(error) = stream.take_error().map_err(DialError::Socket)?
        {
            return Err(unreachable(error));
        }
        Ok(stream)
    }
}

fn denied(ticket: &Ticket) -> DialError {
    DialError::Denied {
        reason: Reason::from_u8(ticket.reason).unwrap_or(Reason::TicketMismatch),
        policy_set: ticket.policy_set,
        alternative: ticket.alternative,
    }
}
