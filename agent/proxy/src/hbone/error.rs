//! Why a tunnel could not be opened.

use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;

use ambit_datapath::DialError;
use ambit_identity::{CertificateUnavailable, PeerIdentityError};
use ambit_model::WorkloadIdentity;

/// Why a tunnel could not be opened. There is no other way to the peer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    /// The peer's node does not answer.
    #[error("no tunnel to {peer}: {source}; is the pod's node running an HBONE proxy?")]
    Dial {
        /// The peer's HBONE address.
        peer: SocketAddr,
        /// Why.
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
        /// Why.
        source: std::io::Error,
    },
    /// The peer names no workload.
    #[error(transparent)]
    Identity(#[from] PeerIdentityError),
    /// The peer is somebody else.
    #[error("{peer} proved to be {found}, but {expected} was expected there")]
    WrongIdentity {
        /// The peer's HBONE address.
        peer: SocketAddr,
        /// Who it is.
        found: WorkloadIdentity,
        /// Who it should be.
        expected: WorkloadIdentity,
    },
    /// HTTP/2 failed.
    #[error("the tunnel to {peer} failed: {source}")]
    Http2 {
        /// The peer's HBONE address.
        peer: SocketAddr,
        /// Why.
        source: h2::Error,
    },
    /// The destination's policies deny it.
    #[error("{peer} denied the connection by its policies (status 401)")]
    Denied {
        /// The peer's HBONE address.
        peer: SocketAddr,
    },
    /// The destination answered something else.
    #[error("{peer} refused the connection with status {status}")]
    Refused {
        /// The peer's HBONE address.
        peer: SocketAddr,
        /// What it answered.
        status: StatusCode,
    },
    /// The destination does not answer.
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
