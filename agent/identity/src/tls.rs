//! TLS between workloads: configurations, handshakes, and the identity of the peer that results.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, CommonState, ServerConfig, version};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::certificate::{Timeliness, parse, rfc3339, unix_time};
use crate::issued::IssuedCertificate;
use crate::managed::CurrentCertificate;
use crate::verify::{PeerIdentityError, PeerVerifier, explain_handshake, peer_identity};
use ambit_authority::Validity;
use ambit_model::WorkloadIdentity;
use ambit_tls::{RecordFailure, Records, Shaken, Side};

/// The only protocol inside tunnels.
pub(super) const ALPN: &[u8] = b"h2";

/// Key exchanges in order of preference. The first is post-quantum, so that traffic recorded today
/// cannot be decrypted later. Peers that do not support it use another.
const KEY_EXCHANGES: [&dyn SupportedKxGroup; 4] = [
    kx_group::X25519MLKEM768,
    kx_group::X25519,
    kx_group::SECP256R1,
    kx_group::SECP384R1,
];

/// Opens tunnels with one certificate.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    epoch: u64,
}

/// Accepts tunnels with one certificate.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    generation: u64,
}

/// A connection on which both sides have proved who they are.
pub struct SecuredSocket<S> {
    /// What carries the records.
    pub socket: S,
    /// What seals and opens them.
    pub records: Records,
    /// Records that came with the end of the handshake.
    pub early: Vec<u8>,
}

/// A client whose certificate was verified when it opened its connection.
#[derive(Debug)]
pub struct VerifiedPeer {
    identity: WorkloadIdentity,
    /// The client's certificates, leaf first.
    chain: Vec<CertificateDer<'static>>,
    validity: Validity,
    /// The generation of the roots that the chain was last verified against.
    generation: AtomicU64,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// TLS itself failed.
    #[error("{0}")]
    Tls(#[from] io::Error),
    /// The peer's certificate is not that of an acceptable workload.
    #[error(transparent)]
    Identity(#[from] PeerIdentityError),
}

/// Why a connection to a peer was not made.
#[derive(Debug, thiserror::Error)]
pub enum PeerConnectError {
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The peer is a different workload.
    #[error("the peer proved to be {found}, but {expected} was expected there")]
    WrongIdentity {
        /// The identity that the peer proved.
        found: WorkloadIdentity,
        /// The identity that was expected.
        expected: WorkloadIdentity,
    },
}

impl ClientTls {
    pub(super) fn new(current: &CurrentCertificate) -> Self {
        Self {
            config: Arc::clone(&current.configs.client),
            epoch: current.epoch,
        }
    }

    /// A number that changes with each new certificate and each change of the mesh's roots. Connections
    /// with an older epoch take no new streams.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Performs a handshake on `stream` and accepts no peer but `expected`. `address` is the peer's,
    /// and is not sent.
    ///
    /// # Errors
    /// [`PeerConnectError`].
    pub async fn connect<S>(
        &self,
        address: IpAddr,
        expected: &WorkloadIdentity,
        stream: S,
    ) -> Result<SecuredSocket<S>, PeerConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::IpAddress(address.into());
        let connecting = ambit_tls::connect(Arc::clone(&self.config), name, stream);
        let shaken = connecting.await.map_err(failed)?;
        let session = shaken.session();
        let found = peer_identity(session.peer_certificates().unwrap_or_default());
        let found = found.map_err(HandshakeError::Identity)?;
        if found != *expected {
            let expected = expected.clone();
            return Err(PeerConnectError::WrongIdentity { found, expected });
        }
        ensure_http2(session)?;
        Ok(secured(shaken)?)
    }
}

impl ServerTls {
    pub(super) fn new(current: &CurrentCertificate) -> Self {
        Self {
            config: Arc::clone(&current.configs.server),
            generation: current.verification.generation,
        }
    }

    /// Performs a handshake with a workload of the mesh.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn accept<S>(
        &self,
        stream: S,
    ) -> Result<(SecuredSocket<S>, VerifiedPeer), HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let accepting = ambit_tls::accept(Arc::clone(&self.config), stream);
        let shaken = accepting.await.map_err(failed)?;
        let session = shaken.session();
        let peer = VerifiedPeer::new(
            session.peer_certificates().unwrap_or_default(),
            self.generation,
        )?;
        ensure_http2(session)?;
        Ok((secured(shaken)?, peer))
    }
}

fn secured<S, C: Side>(shaken: Shaken<S, C>) -> Result<SecuredSocket<S>, HandshakeError> {
    let no_keys = |failure: RecordFailure| HandshakeError::Tls(io::Error::other(failure));
    let (socket, records, early) = shaken.into_parts().map_err(no_keys)?;
    Ok(SecuredSocket {
        socket,
        records,
        early,
    })
}

fn failed(error: io::Error) -> HandshakeError {
    HandshakeError::Tls(explain_handshake(error))
}

fn ensure_http2(session: &CommonState) -> Result<(), HandshakeError> {
    if session.alpn_protocol() == Some(ALPN) {
        return Ok(());
    }
    let problem = "the peer does not speak HTTP/2 (ALPN h2)";
    Err(HandshakeError::Tls(io::Error::other(problem)))
}

impl VerifiedPeer {
    fn new(chain: &[CertificateDer<'_>], generation: u64) -> Result<Self, PeerIdentityError> {
        let identity = peer_identity(chain)?;
        let leaf = chain.first().ok_or(PeerIdentityError::NoCertificate)?;
        let validity = Validity::of(&parse(leaf)?);
        Ok(Self {
            identity,
            validity,
            chain: chain.iter().map(|one| one.clone().into_owned()).collect(),
            generation: AtomicU64::new(generation),
        })
    }

    /// The client's identity.
    pub fn identity(&self) -> &WorkloadIdentity {
        &self.identity
    }

    pub(super) fn ensure_accepted(
        &self,
        by: Option<&CurrentCertificate>,
        now: SystemTime,
    ) -> Result<(), PeerIdentityError> {
        let no_longer = |reason: String| PeerIdentityError::NoLonger {
            identity: self.identity.clone(),
            reason,
        };
        if Timeliness::of(self.validity, now) == Timeliness::Expired {
            let until = rfc3339(self.validity.until);
            return Err(no_longer(format!("it expired at {until}")));
        }
        let Some(verification) = by.map(|current| &current.verification) else {
            return Ok(());
        };
        if self.generation.load(Ordering::Relaxed) == verification.generation {
            return Ok(());
        }
        let (leaf, intermediates) = self
            .chain
            .split_first()
            .ok_or(PeerIdentityError::NoCertificate)?;
        verification
            .verifier
            .as_client(leaf, intermediates, unix_time(now))
            .map_err(|error| no_longer(format!("with the mesh's new roots, {error}")))?;
        self.generation
            .store(verification.generation, Ordering::Relaxed);
        Ok(())
    }
}

/// TLS configurations for one certificate, as client and as server: TLS 1.3, HTTP/2, mutual
/// authentication, no resumption.
#[derive(Debug)]
pub(super) struct TlsConfigs {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
}

impl TlsConfigs {
    /// Builds configurations that present a certificate and verify peers.
    ///
    /// # Errors
    /// If the certificate and the key do not match, or cannot be used.
    pub(super) fn new(
        issued: &IssuedCertificate,
        verifier: &Arc<PeerVerifier>,
    ) -> Result<Self, rustls::Error> {
        let provider = crypto_provider();
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(Arc::clone(verifier) as _)
            .with_single_cert(issued.chain.clone(), issued.key.clone_key())?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        // The records after the handshake are sealed and opened by `ambit_tls`.
        server.enable_secret_extraction = true;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(verifier) as _)
            .with_client_auth_cert(issued.chain.clone(), issued.key.clone_key())?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        client.enable_secret_extraction = true;
        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }
}

/// The cryptography of all TLS connections that prove an identity.
pub(super) fn crypto_provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: KEY_EXCHANGES.to_vec(),
        ..aws_lc_rs::default_provider()
    })
}
