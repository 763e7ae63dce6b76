//! TLS configurations of a workload: TLS 1.3 only, HTTP/2 only, certificates on both sides, no
//! resumption.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, ServerConfig, version};

use super::crypto;
use super::issued::IssuedCertificate;
use super::verify::PeerVerifier;

/// The only protocol that a tunnel speaks.
pub(super) const ALPN: &[u8] = b"h2";

/// Both sides' configuration for one certificate.
#[derive(Debug)]
pub(super) struct TlsConfigs {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
}

impl TlsConfigs {
    /// Configurations that present a certificate, and accept peers by a verifier.
    ///
    /// # Errors
    /// Where certificate and key do not belong together, or cannot be used.
    pub(super) fn new(
        issued: &IssuedCertificate,
        verifier: &Arc<PeerVerifier>,
    ) -> Result<Self, rustls::Error> {
        let provider = crypto::provider();
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(Arc::clone(verifier) as _)
            .with_single_cert(issued.chain.clone(), issued.key.clone_key())?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(verifier) as _)
            .with_client_auth_cert(issued.chain.clone(), issued.key.clone_key())?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }
}
