//! Verification of a peer's certificate: its chain, and then who it says the peer is.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use x509_parser::extensions::GeneralName;

use crate::model::{IdentityError, TrustDomain, WorkloadIdentity};

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

/// Why a certificate names no workload of the mesh.
#[derive(Debug, thiserror::Error)]
pub enum PeerIdentityError {
    /// There is none.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// It cannot be read.
    #[error("the peer's certificate cannot be read: {0}")]
    Unreadable(String),
    /// It does not have exactly one URI name.
    #[error("the peer's certificate has {0} URI names; a workload's has exactly one")]
    NotOneUri(usize),
    /// Its name is no workload identity.
    #[error("the peer's certificate names no workload: {0}")]
    Identity(#[from] IdentityError),
    /// Its trust domain is not accepted.
    #[error("the peer {0} is of a trust domain that this mesh does not accept")]
    ForeignTrustDomain(WorkloadIdentity),
}

/// The identity in a verified peer's chain, leaf first.
///
/// # Errors
/// [`PeerIdentityError`] unless the leaf has exactly one URI name of the five-part SPIFFE form.
pub fn peer_identity(chain: &[CertificateDer<'_>]) -> Result<WorkloadIdentity, PeerIdentityError> {
    let leaf = chain.first().ok_or(PeerIdentityError::NoCertificate)?;
    let unreadable = |error: String| PeerIdentityError::Unreadable(error);
    let (_, parsed) =
        x509_parser::parse_x509_certificate(leaf).map_err(|error| unreadable(error.to_string()))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|error| unreadable(error.to_string()))?
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
        other => Err(PeerIdentityError::NotOneUri(other.len())),
    }
}

/// A failed handshake's error, which says why the peer was refused where this side refused it:
/// rustls shows the reasons of verifiers that are not its own as a data structure.
pub fn explain_handshake(error: io::Error) -> io::Error {
    let reason = match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(reason)))) => {
            reason.to_string()
        }
        _ => return error,
    };
    io::Error::new(error.kind(), reason)
}

/// Verifies peers on both sides of a tunnel. The name that a client dials says nothing.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    trust: TrustPolicy,
}

impl PeerVerifier {
    pub(super) fn new(
        chain: Arc<dyn ClientCertVerifier>,
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
        trust: TrustPolicy,
    ) -> Self {
        Self {
            chain,
            roots,
            provider,
            trust,
        }
    }

    fn identify(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let refused = |error: PeerIdentityError| {
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
        };
        let identity = peer_identity(std::slice::from_ref(leaf)).map_err(refused)?;
        if self.trust.accepts(identity.trust_domain()) {
            return Ok(());
        }
        Err(refused(PeerIdentityError::ForeignTrustDomain(identity)))
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        self.identify(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        self.identify(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
