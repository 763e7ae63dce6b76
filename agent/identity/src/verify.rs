//! Verification of a peer's certificate: its chain first, then its identity.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use crate::certificate::{
    CertificateNameError, CertificateUsageError, ensure_workload, name_of, parse, verified_at,
};
use crate::roots::TrustAnchors;
use crate::tls::crypto_provider;
use ambit_model::{TrustDomain, WorkloadIdentity};

/// The trust domains that peers may belong to.
#[derive(Clone, Debug)]
pub struct TrustPolicy {
    /// The mesh's own trust domain.
    pub trust_domain: TrustDomain,
    /// Further trust domains that count as the mesh's own.
    pub aliases: Vec<TrustDomain>,
}

impl TrustPolicy {
    /// Whether peers of a trust domain are accepted.
    pub fn accepts(&self, domain: &TrustDomain) -> bool {
        *domain == self.trust_domain || self.aliases.contains(domain)
    }
}

/// Why a peer is not accepted as a workload of the mesh.
#[derive(Debug, thiserror::Error)]
pub enum PeerIdentityError {
    /// The peer sent no certificate.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// The certificate does not name an identity.
    #[error("the peer's certificate {0}")]
    Name(#[from] CertificateNameError),
    /// The certificate's usages are not those of a workload.
    #[error("the peer's certificate is not for a workload: {0}")]
    Usage(#[from] CertificateUsageError),
    /// The identity's trust domain is not accepted.
    #[error("the peer {0} belongs to a trust domain that this mesh does not accept")]
    ForeignTrustDomain(WorkloadIdentity),
    /// The certificate was accepted when the connection was opened, and is not any more.
    #[error(
        "the certificate that the peer {identity} opened this connection with is no longer \
         accepted: {reason}; the peer has to reconnect"
    )]
    NoLonger {
        /// The peer's identity.
        identity: WorkloadIdentity,
        /// Why the certificate is not accepted any more.
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

/// The identity of a leaf certificate, if its usages are those of a workload.
pub(super) fn workload_of(
    leaf: &CertificateDer<'_>,
) -> Result<WorkloadIdentity, PeerIdentityError> {
    let parsed = parse(leaf)?;
    let identity = name_of(&parsed)?;
    ensure_workload(&parsed)?;
    Ok(identity)
}

/// A failed handshake's error. If this side refused the peer, it states the reason: rustls displays the
/// errors of custom verifiers as a data structure.
pub(super) fn explain_handshake(error: io::Error) -> io::Error {
    let reason = match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(reason)))) => {
            reason.to_string()
        }
        _ => return error,
    };
    io::Error::new(error.kind(), reason)
}

/// Verifies peers on both sides of a tunnel. The server name that a client dials is ignored.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    trust: TrustPolicy,
}

impl PeerVerifier {
    /// A verifier with these roots.
    ///
    /// # Errors
    /// If there is no root, or one cannot be used.
    pub(super) fn new(anchors: &TrustAnchors, trust: TrustPolicy) -> Result<Self, Error> {
        let provider = crypto_provider();
        let mut roots = RootCertStore::empty();
        for anchor in anchors.certificates() {
            roots.add(anchor.clone())?;
        }
        let roots = Arc::new(roots);
        let chain =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self {
            chain,
            roots,
            provider,
            trust,
        })
    }

    /// Verifies a chain, leaf first, as a server's.
    ///
    /// # Errors
    /// Why the chain is refused.
    pub(super) fn as_server(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf)?,
            &self.roots,
            intermediates,
            verified_at(std::iter::once(leaf).chain(intermediates), now),
            self.provider.signature_verification_algorithms.all,
        )?;
        self.identify(leaf)
    }

    /// Verifies a chain, leaf first, as a client's.
    ///
    /// # Errors
    /// Why the chain is refused.
    pub(super) fn as_client(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let at = verified_at(std::iter::once(leaf).chain(intermediates), now);
        self.chain.verify_client_cert(leaf, intermediates, at)?;
        self.identify(leaf)
    }

    fn identify(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let refused = |error: PeerIdentityError| {
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
        };
        let identity = workload_of(leaf).map_err(refused)?;
        if self.trust.accepts(identity.trust_domain()) {
            return Ok(());
        }
        Err(refused(PeerIdentityError::ForeignTrustDomain(identity)))
    }
}

/// The methods that both of rustls' traits require: the chain's verifier checks handshake signatures.
macro_rules! signatures_by_chain {
    () => {
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
    };
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
        self.as_server(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures_by_chain!();
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
        self.as_client(end_entity, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures_by_chain!();
}
