//! TLS configurations of a workload: TLS 1.3 only, HTTP/2 only, certificates on both sides, no
//! resumption.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig, version};

use super::provider::IssuedCertificate;
use super::verify::{PeerVerifier, TrustPolicy};

/// The only protocol that a tunnel speaks.
const ALPN: &[u8] = b"h2";

/// Both sides' configuration for one certificate.
#[derive(Debug)]
pub(super) struct TlsConfigs {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
}

impl TlsConfigs {
    pub(super) fn new(
        issued: &IssuedCertificate,
        anchors: Vec<CertificateDer<'static>>,
        trust: TrustPolicy,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for anchor in anchors {
            roots.add(anchor)?;
        }
        let roots = Arc::new(roots);
        let chain =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider.clone())
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        let verifier = Arc::new(PeerVerifier::new(chain, roots, provider.clone(), trust));
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(verifier.clone())
            .with_single_cert(issued.chain.clone(), issued.key.clone_key())?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
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
