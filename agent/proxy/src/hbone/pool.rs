//! The tunnels that one pod has open from one shard. Many streams share a connection.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ambit_common::HBONE_PORT;
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, StatusCode};
use tokio::sync::Mutex;

use super::connect::forwarded_for;
use super::connection::TunnelConnection;
use super::transport::Transport;
use crate::shard::turns::Budget;
use ambit_datapath::{DialError, PodDatapath};
use ambit_identity::{
    CertificateUnavailable, ClientTls, HandshakeError, PeerConnectError, PeerIdentityError,
    WorkloadCertificates,
};
use ambit_model::{CallerAddress, PodEndpoint, WorkloadIdentity};
use ambit_relay::StreamLease;
use ambit_relay::TLS_BUFFER;
use ambit_relay::Tunnel;

/// How long the TLS and HTTP/2 handshakes may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a CONNECT may go unanswered.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// The tunnels of one pod on one shard. They use the pod's own certificate.
pub(crate) struct TunnelPool {
    datapath: PodDatapath,
    certificates: WorkloadCertificates,
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
    /// HTTP/2 failed.
    #[error("the tunnel to {peer} failed: {source}")]
    Http2 {
        /// The peer's HBONE address.
        peer: SocketAddr,
        /// The cause.
        source: h2::Error,
    },
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
        status: StatusCode,
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
            Self::Denied { .. } => "tunnel-denied",
            Self::Refused { .. } => "tunnel-refused",
            Self::TimedOut { .. } => "tunnel-timed-out",
        }
    }
}

/// A connection with a place for one stream.
struct PooledConnection {
    requests: SendRequest<Bytes>,
    lease: StreamLease,
    /// Whether it was opened for this stream.
    is_new: bool,
}

/// The connections to one peer. Locked while one is being opened, so that concurrent callers share it.
type PeerConnections = Mutex<Vec<TunnelConnection>>;

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
        budget: Rc<Budget>,
    ) -> Self {
        Self {
            datapath,
            certificates,
            budget,
            peers: RefCell::default(),
        }
    }

    /// Opens a tunnel to an endpoint for `caller`, on a connection that is open or a new one.
    ///
    /// # Errors
    /// [`TunnelError`].
    pub(crate) async fn open(
        &self,
        endpoint: &PodEndpoint,
        caller: CallerAddress,
    ) -> Result<Tunnel, TunnelError> {
        let peer = TunnelDestination {
            address: SocketAddr::new(endpoint.address.ip(), HBONE_PORT),
            identity: endpoint.workload.identity.clone(),
            uid: Arc::clone(&endpoint.workload.uid),
        };
        loop {
            let PooledConnection {
                requests,
                lease,
                is_new,
            } = self.connection(&peer).await?;
            match requests.ready().await {
                Ok(requests) => return connect(requests, lease, &peer, endpoint, caller).await,
                // It died in the pool; nothing was sent on it.
                Err(_) if !is_new => {}
                Err(source) => {
                    return Err(TunnelError::Http2 {
                        peer: peer.address,
                        source,
                    });
                }
            }
        }
    }

    /// Ends every connection.
    pub(crate) fn close(&self) {
        for connections in self.peers.take().into_values() {
            // One that is being opened ends with the task that opens it.
            if let Ok(open) = connections.try_lock() {
                open.iter().for_each(TunnelConnection::abort);
            }
        }
    }

    /// Returns a connection with room for a stream.
    async fn connection(&self, peer: &TunnelDestination) -> Result<PooledConnection, TunnelError> {
        let connections = Rc::clone(self.peers.borrow_mut().entry(peer.clone()).or_default());
        let mut connections = connections.lock().await;
        // Without a valid certificate no new stream is opened, not even on an open connection.
        let tls = self.certificates.client()?;
        connections.retain(|connection| connection.takes_streams(tls.epoch()));
        if let Some(open) = connections.iter().find(|connection| connection.has_room()) {
            let (requests, lease) = open.take();
            return Ok(PooledConnection {
                requests,
                lease,
                is_new: false,
            });
        }
        self.forget_idle_peers();
        // On the heap: most tunnels find an open connection, and would keep room for this.
        let opened = Box::pin(self.connect(peer, &tls)).await?;
        let (requests, lease) = opened.take();
        connections.push(opened);
        Ok(PooledConnection {
            requests,
            lease,
            is_new: true,
        })
    }

    /// Forgets the peers without an open connection, unless one is being opened.
    fn forget_idle_peers(&self) {
        self.peers.borrow_mut().retain(|_, connections| {
            let Ok(open) = connections.try_lock() else {
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
        let handshake = async {
            let transport = Transport::new(stream);
            let connecting = tls.connect(address.ip(), &peer.identity, transport.clone());
            let mut stream = transport
                .sending(connecting)
                .await
                .map_err(|error| refused(address, error))?;
            let session = stream.get_mut().1;
            session.set_buffer_limit(Some(TLS_BUFFER));
            TunnelConnection::open(address, stream, transport, tls.epoch(), &self.budget).await
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

async fn connect(
    mut requests: SendRequest<Bytes>,
    lease: StreamLease,
    peer: &TunnelDestination,
    endpoint: &PodEndpoint,
    caller: CallerAddress,
) -> Result<Tunnel, TunnelError> {
    let address = peer.address;
    let failed = |source| TunnelError::Http2 {
        peer: address,
        source,
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = authority(endpoint.address);
    if let Ok(value) = forwarded_for(caller).try_into() {
        request.headers_mut().insert(http::header::FORWARDED, value);
    }
    let (response, send) = requests.send_request(request, false).map_err(failed)?;
    let response = match tokio::time::timeout(CONNECT_TIMEOUT, response).await {
        Ok(response) => response.map_err(failed)?,
        Err(_) => {
            return Err(TunnelError::TimedOut {
                peer: address,
                timeout: CONNECT_TIMEOUT,
            });
        }
    };
    match response.status() {
        StatusCode::OK => Ok(Tunnel {
            send,
            receive: response.into_body(),
            lease: Some(lease),
        }),
        StatusCode::UNAUTHORIZED => Err(TunnelError::Denied { peer: address }),
        status => Err(TunnelError::Refused {
            peer: address,
            status,
        }),
    }
}

/// Returns the request target of a CONNECT (RFC 9110, section 9.3.6).
#[expect(clippy::expect_used, reason = "an address and port is an authority")]
fn authority(to: SocketAddr) -> http::Uri {
    let authority = http::uri::Authority::try_from(to.to_string()).expect("an authority");
    http::Uri::from(authority)
}
