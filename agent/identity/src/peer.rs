//! Who a certificate says that its holder is.

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::usage::{CertificateUsageError, ensure_workload};
use ambit_model::{IdentityError, TrustDomain, WorkloadIdentity};

/// Which trust domains peers may be of.
#[derive(Clone, Debug)]
pub struct TrustPolicy {
    /// The mesh's own.
    pub trust_domain: TrustDomain,
    /// Others that count as the mesh's own.
    pub aliases: Vec<TrustDomain>,
}

impl TrustPolicy {
    /// Whether peers of a trust domain are accepted.
    pub fn accepts(&self, domain: &TrustDomain) -> bool {
        *domain == self.trust_domain || self.aliases.contains(domain)
    }
}

/// Why a certificate has no identity: what is the matter with the certificate, without a subject.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CertificateNameError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// It does not have exactly one URI name.
    #[error("has {0} URI names; a workload's has exactly one")]
    NotOneUri(usize),
    /// Its name is no workload identity.
    #[error("names no workload: {0}")]
    Identity(#[from] IdentityError),
}

/// Why a peer is no workload of the mesh.
#[derive(Debug, thiserror::Error)]
pub enum PeerIdentityError {
    /// There is no certificate.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// It has no identity.
    #[error("the peer's certificate {0}")]
    Name(#[from] CertificateNameError),
    /// It is not for a workload's handshakes.
    #[error("the peer's certificate is not for a workload: {0}")]
    Usage(#[from] CertificateUsageError),
    /// Its trust domain is not accepted.
    #[error("the peer {0} is of a trust domain that this mesh does not accept")]
    ForeignTrustDomain(WorkloadIdentity),
    /// It was valid when the connection was opened.
    #[error(
        "the certificate that the peer {identity} opened this connection with is accepted no \
         longer: {reason}; the peer has to connect anew"
    )]
    NoLonger {
        /// Who it was.
        identity: WorkloadIdentity,
        /// Why not.
        reason: String,
    },
}

/// The identity in a verified peer's chain, leaf first.
///
/// # Errors
/// [`PeerIdentityError`] unless the leaf has exactly one URI name of the five-part SPIFFE form.
pub fn peer_identity(chain: &[CertificateDer<'_>]) -> Result<WorkloadIdentity, PeerIdentityError> {
    let leaf = chain.first().ok_or(PeerIdentityError::NoCertificate)?;
    Ok(name_of(&parse(leaf)?)?)
}

/// The identity of a leaf that is for a workload's handshakes.
pub(super) fn workload_of(
    leaf: &CertificateDer<'_>,
) -> Result<WorkloadIdentity, PeerIdentityError> {
    let parsed = parse(leaf)?;
    let identity = name_of(&parsed)?;
    ensure_workload(&parsed)?;
    Ok(identity)
}

/// A certificate's fields.
pub(super) fn parse<'a>(
    certificate: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, CertificateNameError> {
    x509_parser::parse_x509_certificate(certificate)
        .map(|(_, parsed)| parsed)
        .map_err(|error| CertificateNameError::Unreadable(error.to_string()))
}

/// The one identity that a certificate names.
pub(super) fn name_of(
    leaf: &X509Certificate<'_>,
) -> Result<WorkloadIdentity, CertificateNameError> {
    let names = leaf
        .subject_alternative_name()
        .map_err(|error| CertificateNameError::Unreadable(error.to_string()))?
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let uris: Vec<&str> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris.as_slice() {
        [uri] => Ok(WorkloadIdentity::from_spiffe_id(uri)?),
        other => Err(CertificateNameError::NotOneUri(other.len())),
    }
}
