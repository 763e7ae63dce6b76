//! The tunnels that one pod has open from one shard. Many streams share a connection.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ambit_common::HBONE_PORT;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::connect::forwarded_for;
use super::connection::TunnelConnection;
use super::first_bytes::FirstBytes;
use crate::shard::turns::Budget;
use ambit_account::{AccountExhausted, PodAccount};
use ambit_datapath::{DialError, PodDatapath};
use ambit_identity::{
    CertificateUnavailable, ClientTls, HandshakeError, PeerConnectError, PeerIdentityError,
    WorkloadCertificates,
};
use ambit_model::{CallerAddress, PodEndpoint, WorkloadIdentity};
use ambit_tunnel::{ErrorCode, OpenError, Stream, StreamFailure, TlsWire, TunnelFailure};

/// How long the TLS and HTTP/2 handshakes may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a CONNECT may go unanswered.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How often a stream that a peer has not looked at is opened on another connection.
const UNPROCESSED_ATTEMPTS: usize = 3;

/// The tunnels of one pod on one shard. They use the pod's own certificate.
pub(crate) struct TunnelPool {
    datapath: PodDatapath,
    certificates: WorkloadCertificates,
    memory: PodAccount,
    /// The budget that its connections run on.
    budget: Rc<Budget>,
    peers: RefCell<HashMap<TunnelDestination, Rc<PeerConnections>>>,
}

/// The peer of a tunnel: its address, and the pod and identity that have to be there.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct TunnelDestination {
    address: SocketAddr,
    identity: WorkloadIdentity,
    /// The pod's: a successor at the same address is another peer.
    uid: Arc<str>,
}

/// Why a tunnel could not be opened. The proxy then refuses the connection: there is no fallback.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    /// The peer cannot be connected.
    #[error("no tunnel to {peer}: {source}; is the pod's node running an HBONE proxy?")]
    Dial {
        /// The peer's HBONE address.
        peer: SocketAddr,
        /// The cause.
        source: DialError,
    },
    /// This pod has no valid certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateUnavailable),
    /// The TLS handshake failed.
    #[error("the TLS handshake with {peer} failed: {source}")]
    Tls {
        /// The peer's HBONE address.
        peer: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The peer's certificate does not name a workload.
    #[error(transparent)]
    Identity(#[from] PeerIdentityError),
    /// The peer proved another identity.
    #[error("{peer} proved the identity {found}, but {expected} was expected")]
    WrongIdentity {
        /// The peer's HBONE address.
        peer: SocketAddr,
        /// The identity that it proved.
        found: WorkloadIdentity,
        /// The identity of the endpoint's pod.
        expected: WorkloadIdentity,
    },
    /// The stream failed before it was answered.
    #[error("the tunnel to {peer} failed: {source}")]
    Http2 {
        /// The peer's HBONE address.
        peer: SocketAddr,
        /// The cause.
        source: StreamFailure,
    },
    /// There is no memory for the stream.
    #[error(transparent)]
    Memory(#[from] AccountExhausted),
    /// The destination's policies deny it.
    #[error("{peer} denied the connection by its policies (status 401)")]
    Denied {
        /// The peer's HBONE address.
        peer: SocketAddr,
    },
    /// The destination answered with another status.
    #[error("{peer} refused the connection with status {status}")]
    Refused {
        /// The peer's HBONE address.
        peer: SocketAddr,
        /// The status.
        status: u16,
    },
    /// The destination did not answer.
    #[error("{peer} did not answer within {timeout:?}")]
    TimedOut {
        /// The peer's HBONE address.
        peer: SocketAddr,
        /// How long it had.
        timeout: Duration,
    },
}

impl TunnelError {
    /// Whether one side denied the other, rather than failed.
    pub(crate) const fn is_denial(&self) -> bool {
        match self {
            Self::Identity(_) | Self::WrongIdentity { .. } | Self::Denied { .. } => true,
            Self::Dial { .. }
            | Self::Certificate(_)
            | Self::Tls { .. }
            | Self::Http2 { .. }
            | Self::Memory(_)
            | Self::Refused { .. }
            | Self::TimedOut { .. } => false,
        }
    }

    /// The word that logs and metrics use.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Dial { .. } => "tunnel-not-connected",
            Self::Certificate(_) => "no-certificate",
            Self::Tls { .. } => "tunnel-handshake-failed",
            Self::Identity(_) | Self::WrongIdentity { .. } => "tunnel-wrong-identity",
            Self::Http2 { .. } => "tunnel-failed",
            Self::Memory(_) => "no-memory",
            Self::Denied { .. } => "tunnel-denied",
            Self::Refused { .. } => "tunnel-refused",
            Self::TimedOut { .. } => "tunnel-timed-out",
        }
    }
}

/// The connections to one peer.
#[derive(Default)]
struct PeerConnections {
    /// Locked while one is being opened, so that concurrent callers share it.
    open: Mutex<Vec<TunnelConnection>>,
    /// Whether the peer has broken off a stream because of bytes that came before its answer.
    refuses_first_bytes: Cell<bool>,
}

impl std::fmt::Debug for TunnelPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunnelPool")
            .field("peers", &self.peers.borrow().len())
            .finish()
    }
}

impl TunnelPool {
    pub(crate) fn new(
        datapath: PodDatapath,
        certificates: WorkloadCertificates,
        memory: PodAccount,
        budget: Rc<Budget>,
    ) -> Self {
        Self {
            datapath,
            certificates,
            memory,
            budget,
            peers: RefCell::default(),
        }
    }

    /// Opens a stream to an endpoint for `caller`, on a connection that is open or a new one. `first_bytes` go
    /// with it.
    ///
    /// # Errors
    /// [`TunnelError`].
    pub(crate) async fn open(
        &self,
        endpoint: &PodEndpoint,
        caller: CallerAddress,
        first_bytes: &FirstBytes<'_>,
    ) -> Result<Stream, TunnelError> {
        let peer = TunnelDestination {
            address: SocketAddr::new(endpoint.address.ip(), HBONE_PORT),
            identity: endpoint.workload.identity.clone(),
            uid: Arc::clone(&endpoint.workload.uid),
        };
        let connections = Rc::clone(self.peers.borrow_mut().entry(peer.clone()).or_default());
        let (authority, forwarded) = (endpoint.address.to_string(), forwarded_for(caller));
        let none = FirstBytes::none();
        let mut attempts = 1..=UNPROCESSED_ATTEMPTS;
        loop {
            first_bytes.begin();
            let is_last = attempts
                .next()
                .is_none_or(|attempt| attempt == UNPROCESSED_ATTEMPTS);
            let stream = self
                .stream(&peer, &connections, &authority, &forwarded)
                .await?;
            let first_bytes = match connections.refuses_first_bytes.get() {
                true => &none,
                false => first_bytes,
            };
            match answer(&stream, first_bytes, peer.address).await {
                Err(TunnelError::Http2 { source, .. }) if source.is_unprocessed() && !is_last => {}
                Err(TunnelError::Http2 { source, peer }) => {
                    if first_bytes.sent() > 0 && blames_first_bytes(&source) {
                        connections.refuses_first_bytes.set(true);
                    }
                    return Err(TunnelError::Http2 { source, peer });
                }
                answered => return answered.map(|()| stream),
            }
        }
    }

    /// Ends every connection.
    pub(crate) fn close(&self) {
        for connections in self.peers.take().into_values() {
            // One that is being opened ends with the task that opens it.
            if let Ok(open) = connections.open.try_lock() {
                open.iter().for_each(TunnelConnection::abort);
            }
        }
    }

    /// Opens a stream on a connection with room for it.
    async fn stream(
        &self,
        peer: &TunnelDestination,
        connections: &PeerConnections,
        authority: &str,
        forwarded: &str,
    ) -> Result<Stream, TunnelError> {
        let mut open = connections.open.lock().await;
        // Without a valid certificate no new stream is opened, not even on an open connection.
        let tls = self.certificates.client()?;
        open.retain(|connection| connection.takes_streams(tls.epoch()));
        for connection in open.iter().filter(|connection| connection.has_room()) {
            match connection.opener().open(authority, forwarded) {
                Ok(stream) => return Ok(stream),
                Err(OpenError::Memory(exhausted)) => return Err(exhausted.into()),
                Err(OpenError::NotOpen) => {}
            }
        }
        self.forget_idle_peers();
        // On the heap: most tunnels find an open connection, and would keep room for this.
        let opened = Box::pin(self.connect(peer, &tls)).await?;
        let stream = opened.opener().open(authority, forwarded);
        open.push(opened);
        stream.map_err(|error| match error {
            OpenError::Memory(exhausted) => exhausted.into(),
            OpenError::NotOpen => TunnelError::Http2 {
                peer: peer.address,
                source: TunnelFailure::Closed.into(),
            },
        })
    }

    /// Forgets the peers without an open connection, unless one is being opened.
    fn forget_idle_peers(&self) {
        self.peers.borrow_mut().retain(|_, connections| {
            let Ok(open) = connections.open.try_lock() else {
                return true;
            };
            Rc::strong_count(connections) > 1 || open.iter().any(TunnelConnection::is_open)
        });
    }

    async fn connect(
        &self,
        peer: &TunnelDestination,
        tls: &ClientTls,
    ) -> Result<TunnelConnection, TunnelError> {
        let address = peer.address;
        let stream =
            self.datapath
                .dial_tunnel(address)
                .await
                .map_err(|source| TunnelError::Dial {
                    peer: address,
                    source,
                })?;
        let memory = self.memory.clone();
        let handshake = async {
            let wire = shake_hands(peer, tls, stream).await?;
            Ok(TunnelConnection::open(
                address,
                wire,
                memory,
                tls.epoch(),
                &self.budget,
            ))
        };
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(opened) => opened,
            Err(_) => Err(TunnelError::TimedOut {
                peer: address,
                timeout: HANDSHAKE_TIMEOUT,
            }),
        }
    }
}

fn refused(peer: SocketAddr, error: PeerConnectError) -> TunnelError {
    match error {
        PeerConnectError::Handshake(HandshakeError::Tls(source)) => {
            TunnelError::Tls { peer, source }
        }
        PeerConnectError::Handshake(HandshakeError::Identity(error)) => {
            TunnelError::Identity(error)
        }
        PeerConnectError::WrongIdentity { found, expected } => TunnelError::WrongIdentity {
            peer,
            found,
            expected,
        },
    }
}

async fn shake_hands(
    peer: &TunnelDestination,
    tls: &ClientTls,
    stream: TcpStream,
) -> Result<TlsWire<TcpStream>, TunnelError> {
    let address = peer.address;
    let connecting = tls.connect(address.ip(), &peer.identity, stream);
    let shaken = connecting.await.map_err(|error| refused(address, error))?;
    Ok(TlsWire::new(shaken.socket, shaken.records, shaken.early))
}

/// Waits for the answer to a CONNECT.
async fn answer(
    stream: &Stream,
    first_bytes: &FirstBytes<'_>,
    peer: SocketAddr,
) -> Result<(), TunnelError> {
    let answer = async {
        tokio::select! {
            status = stream.answered() => status,
            () = first_bytes.send(stream) => std::future::pending().await,
        }
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, answer).await {
        Ok(Ok(200)) => Ok(()),
        Ok(Ok(401)) => Err(TunnelError::Denied { peer }),
        Ok(Ok(status)) => Err(TunnelError::Refused { peer, status }),
        Ok(Err(source)) => Err(TunnelError::Http2 { peer, source }),
        Err(_) => Err(TunnelError::TimedOut {
            peer,
            timeout: CONNECT_TIMEOUT,
        }),
    }
}

/// Whether a peer ended a stream in a way in which it would refuse bytes before its answer.
const fn blames_first_bytes(failure: &StreamFailure) -> bool {
    match failure {
        StreamFailure::Reset(code) => matches!(
            *code,
            ErrorCode::PROTOCOL_ERROR | ErrorCode::FLOW_CONTROL_ERROR | ErrorCode::STREAM_CLOSED
        ),
        StreamFailure::Tunnel(TunnelFailure::GoneAway(_)) => true,
        StreamFailure::Tunnel(_) => false,
    }
}
