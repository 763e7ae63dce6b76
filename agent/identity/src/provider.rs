//! The interface of a certificate authority, as the agent uses it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::issued::IssuedCertificate;
use crate::issued::IssuedCertificateError;
use crate::roots::TrustAnchors;
use ambit_model::WorkloadIdentity;

/// Why no certificate was issued. Displays as a sentence without the full stop.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IssueFailure {
    /// The CA cannot be reached, is not trusted, or does not accept this node. Requests for other
    /// identities would fail too.
    #[error("{0}")]
    Unavailable(String),
    /// The CA did not answer in time.
    #[error("the CA did not answer within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    /// The CA does not issue this certificate.
    #[error("{0}")]
    Refused(String),
    /// The CA's answer is unusable.
    #[error("the CA's answer cannot be used: {0}")]
    Answer(#[from] IssuedCertificateError),
}

impl IssueFailure {
    /// Whether requests for all other identities would fail for the same reason.
    pub const fn is_of_ca(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::TimedOut(_) | Self::Refused(_) | Self::Answer(_) => false,
        }
    }
}

/// The future that [`CertificateProvider::issue`] returns.
pub type IssueFuture<'a> =
    Pin<Box<dyn Future<Output = Result<IssuedCertificate, IssueFailure>> + Send + 'a>>;

/// A source of certificates. It generates the key too, because some CAs do not accept one from outside.
pub trait CertificateProvider: Send + Sync {
    /// Issues a certificate for an identity, valid for about `lifetime`.
    fn issue<'a>(&'a self, identity: &'a WorkloadIdentity, lifetime: Duration) -> IssueFuture<'a>;

    /// The roots that the mesh's certificates must lead to, and each change of them. Empty if the
    /// provider learns them only from its first answer.
    fn anchors(&self) -> watch::Receiver<Arc<TrustAnchors>>;

    /// Why the provider cannot follow its own settings, as a sentence; `None` if it can.
    fn problem(&self) -> Option<String> {
        None
    }
}
