//! Where certificates come from.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::issued::IssuedCertificate;
use crate::issued::IssuedCertificateError;
use crate::roots::TrustAnchors;
use ambit_model::WorkloadIdentity;

/// Why no certificate was issued, as a sentence without its end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IssueFailure {
    /// The authority cannot be reached, is not trusted, or does not talk to this node: whoever asks
    /// next fares the same.
    #[error("{0}")]
    Unavailable(String),
    /// It did not answer in time.
    #[error("the CA did not answer within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    /// It does not issue this certificate.
    #[error("{0}")]
    Refused(String),
    /// What it answered is not used.
    #[error("the CA's answer is not used: {0}")]
    Answer(#[from] IssuedCertificateError),
}

impl IssueFailure {
    /// Whether every other identity would fail for the same reason.
    pub const fn is_of_authority(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::TimedOut(_) | Self::Refused(_) | Self::Answer(_) => false,
        }
    }
}

/// The answer of a provider.
pub type IssueFuture<'a> =
    Pin<Box<dyn Future<Output = Result<IssuedCertificate, IssueFailure>> + Send + 'a>>;

/// A source of certificates. It makes the key too: some authorities do not let others make it.
pub trait CertificateProvider: Send + Sync {
    /// Issues a certificate for an identity, valid for about `lifetime`.
    fn issue<'a>(&'a self, identity: &'a WorkloadIdentity, lifetime: Duration) -> IssueFuture<'a>;

    /// The roots that certificates of the mesh have to lead to, as they change. None at all, where
    /// the provider does not know them before its first answer.
    fn anchors(&self) -> watch::Receiver<Arc<TrustAnchors>>;

    /// What keeps the provider from following its own settings, as a sentence.
    fn problem(&self) -> Option<String> {
        None
    }
}
