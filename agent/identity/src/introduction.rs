//! What a handshake between two workloads of this node would find out, without a handshake.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use crate::certificate::Timeliness;
use crate::issued::{IssuedCertificateError, ensure_chain};
use crate::managed::{CertificateUnavailable, CurrentCertificate, ManagedCertificate};
use crate::roots::Verification;
use ambit_model::WorkloadIdentity;

/// Why a handshake between two workloads of this node would fail.
#[derive(Debug, thiserror::Error)]
pub enum IntroductionError {
    /// One of them has no valid certificate.
    #[error(transparent)]
    Unavailable(#[from] CertificateUnavailable),
    /// One of them does not accept the other's certificate.
    #[error("the certificate of {identity} is not accepted by {by}: {reason}")]
    NotAccepted {
        /// Whose certificate it is.
        identity: WorkloadIdentity,
        /// Who does not accept it.
        by: WorkloadIdentity,
        /// Why.
        reason: IssuedCertificateError,
    },
}

/// Checks that both have a certificate that is valid at `now` and that the other accepts.
///
/// # Errors
/// [`IntroductionError`].
pub(super) fn introduce(
    client: &ManagedCertificate,
    server: &ManagedCertificate,
    now: SystemTime,
) -> Result<(), IntroductionError> {
    let (of_client, of_server) = (client.valid(now)?, server.valid(now)?);
    for (one, own, other, by) in [
        (client, &of_client, server, &of_server),
        (server, &of_server, client, &of_client),
    ] {
        own.ensure_accepted_by(&by.verification, now)
            .map_err(|reason| IntroductionError::NotAccepted {
                identity: one.identity.clone(),
                by: other.identity.clone(),
                reason,
            })?;
    }
    Ok(())
}

impl CurrentCertificate {
    /// Checks that the chain verifies against these roots at `now`. That costs signatures only once for each
    /// set of roots.
    ///
    /// # Errors
    /// [`IssuedCertificateError::Chain`].
    fn ensure_accepted_by(
        &self,
        verification: &Verification,
        now: SystemTime,
    ) -> Result<(), IssuedCertificateError> {
        let is_known = self.verified_by.load(Ordering::Relaxed) == verification.generation;
        let validity = self.certificate.chain_validity;
        if is_known && Timeliness::of(validity, now) == Timeliness::Valid {
            return Ok(());
        }
        ensure_chain(&self.certificate.issued.chain, now, &verification.verifier)?;
        self.verified_by
            .store(verification.generation, Ordering::Relaxed);
        Ok(())
    }
}
