//! What a certificate may be used for.

use x509_parser::prelude::X509Certificate;

/// Why a certificate is not one of a workload (SPIFFE X.509-SVID, section 4).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CertificateUsageError {
    /// It is a CA's.
    #[error("it is a CA's own")]
    Authority,
    /// It may sign other certificates, or lists of revoked ones.
    #[error("its key usage lets it sign for a CA")]
    Signs,
    /// It may not sign a handshake.
    #[error("its key usage does not have digitalSignature")]
    NoSignature,
    /// An extension of it is not understood.
    #[error("its usage cannot be read: {0}")]
    Unreadable(String),
}

/// Whether a leaf may stand for a workload in a handshake, whatever its role there. The extended
/// key usage is held against the role by the verification of the chain.
///
/// # Errors
/// [`CertificateUsageError`].
pub(super) fn ensure_workload(leaf: &X509Certificate<'_>) -> Result<(), CertificateUsageError> {
    let unreadable =
        |error: x509_parser::error::X509Error| CertificateUsageError::Unreadable(error.to_string());
    if let Some(constraints) = leaf.basic_constraints().map_err(unreadable)?
        && constraints.value.ca
    {
        return Err(CertificateUsageError::Authority);
    }
    let usage = leaf.key_usage().map_err(unreadable)?;
    match usage.map(|usage| usage.value) {
        Some(usage) if usage.key_cert_sign() || usage.crl_sign() => {
            Err(CertificateUsageError::Signs)
        }
        Some(usage) if usage.digital_signature() => Ok(()),
        Some(_) | None => Err(CertificateUsageError::NoSignature),
    }
}
