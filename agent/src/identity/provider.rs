//! Where certificates come from.

use std::pin::Pin;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::model::WorkloadIdentity;

/// A certificate with its key.
#[derive(Debug)]
pub struct IssuedCertificate {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
    /// When it begins to be valid.
    pub not_before: SystemTime,
    /// When it ends to be valid.
    pub not_after: SystemTime,
    /// Serial number, in hexadecimal digits.
    pub serial: String,
}

/// Why no certificate was issued.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no certificate could be issued for {identity}: {reason}")]
pub struct IssueError {
    /// For whom.
    pub identity: WorkloadIdentity,
    /// What happened.
    pub reason: String,
}

/// The answer of a provider.
pub type IssueFuture<'a> =
    Pin<Box<dyn Future<Output = Result<IssuedCertificate, IssueError>> + Send + 'a>>;

/// A source of certificates. It makes the key too: some authorities do not let others make it.
pub trait CertificateProvider: Send + Sync {
    /// Issues a certificate for an identity, valid for about `lifetime`.
    fn issue<'a>(&'a self, identity: &'a WorkloadIdentity, lifetime: Duration) -> IssueFuture<'a>;

    /// The roots that peers' certificates have to lead to.
    fn trust_anchors(&self) -> Vec<CertificateDer<'static>>;
}
