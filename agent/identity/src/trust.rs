//! The verification that is in force, node-wide.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::anchors::TrustAnchors;
use super::answer::IssuedCertificateError;
use super::peer::TrustPolicy;
use super::verify::PeerVerifier;

/// Verification by the newest roots.
#[derive(Debug)]
pub(super) struct MeshTrust {
    anchors: watch::Receiver<Arc<TrustAnchors>>,
    policy: TrustPolicy,
    newest: Mutex<Option<Arc<Verification>>>,
}

/// Verification by one set of roots, built once for all identities.
#[derive(Debug)]
pub(super) struct Verification {
    pub(super) verifier: Arc<PeerVerifier>,
    /// Grows with each set of roots.
    pub(super) generation: u64,
    anchors: Arc<TrustAnchors>,
}

impl MeshTrust {
    pub(super) fn new(anchors: watch::Receiver<Arc<TrustAnchors>>, policy: TrustPolicy) -> Self {
        Self {
            anchors,
            policy,
            newest: Mutex::default(),
        }
    }

    /// Tells of changes of the roots.
    pub(super) fn changes(&self) -> watch::Receiver<Arc<TrustAnchors>> {
        self.anchors.clone()
    }

    /// Verification by the newest roots.
    ///
    /// # Errors
    /// Where there are none, or one of them cannot be used.
    pub(super) fn verification(&self) -> Result<Arc<Verification>, IssuedCertificateError> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        // Read with the lock held: what is built last is of the newest.
        let anchors = Arc::clone(&self.anchors.borrow());
        if let Some(known) = &*newest
            && *known.anchors == *anchors
        {
            return Ok(Arc::clone(known));
        }
        if anchors.is_empty() {
            return Err(IssuedCertificateError::NoRoots);
        }
        let verifier = PeerVerifier::new(&anchors, self.policy.clone())
            .map_err(|error| IssuedCertificateError::Chain(error.to_string()))?;
        let built = Arc::new(Verification {
            verifier: Arc::new(verifier),
            generation: newest.as_ref().map_or(1, |known| known.generation + 1),
            anchors,
        });
        *newest = Some(Arc::clone(&built));
        Ok(built)
    }
}
