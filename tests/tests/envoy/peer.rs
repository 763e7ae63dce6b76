//! The senders of requests, and the certificates that identify them to both sides.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ambit_tests::{Credentials, tls_client};
use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    SanType,
};
use rustls::ClientConfig;
use rustls::client::Resumption;

/// The sender of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Peer {
    /// Unknown: plaintext.
    Nobody,
    /// A peer of this principal.
    Known(&'static str),
}

/// All peers.
pub(crate) const PEERS: [Peer; 10] = [
    Peer::Nobody,
    Peer::Known("cluster.local/ns/prod/sa/a"),
    Peer::Known("cluster.local/ns/prod/sa/b"),
    Peer::Known("cluster.local/ns/prod-b/sa/a"),
    Peer::Known("cluster.local/ns/test/sa/a"),
    Peer::Known("cluster.local/ns/test/sa/b"),
    Peer::Known("cluster.local/ns/tXst/sa/a-suffix"),
    Peer::Known("cluster.local/ns/a.b/sa/admin.example"),
    Peer::Known("cluster.local/ns/aXb/sa/adminXexample"),
    Peer::Known("other/ns/prod/sa/a"),
];

/// A CA, and its certificates.
pub(crate) struct Identities {
    /// PEM of the CA's certificate.
    pub(crate) root: String,
    /// PEM of Envoy's certificate.
    pub(crate) certificate: String,
    /// PEM of its key.
    pub(crate) key: String,
    clients: Vec<(&'static str, Arc<ClientConfig>)>,
}

impl Identities {
    /// Makes them; the files are the clients'.
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        let mut params = without_name();
        params.distinguished_name.push(DnType::CommonName, "root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let mut clients = Vec::new();
        for (number, peer) in PEERS.into_iter().enumerate() {
            let Peer::Known(principal) = peer else {
                continue;
            };
            let (certificate, key) = certify(&ca, &format!("spiffe://{principal}"))?;
            let credentials = Credentials {
                certificate: write(directory, &format!("{number}.crt"), &certificate)?,
                key: write(directory, &format!("{number}.key"), &key)?,
            };
            let mut config = ClientConfig::clone(&*tls_client(Some(&credentials))?);
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            config.resumption = Resumption::disabled();
            clients.push((principal, Arc::new(config)));
        }
        let (certificate, key) = certify(&ca, "spiffe://cluster.local/ns/prod/sa/web")?;
        Ok(Self {
            root: ca.pem(),
            certificate,
            key,
            clients,
        })
    }

    /// TLS as the peer of a principal speaks it.
    pub(crate) fn client(&self, principal: &str) -> Option<&Arc<ClientConfig>> {
        let mut clients = self.clients.iter();
        clients.find_map(|(own, config)| (*own == principal).then_some(config))
    }
}

/// PEM of a certificate for a URI, and of its key.
fn certify(ca: &CertifiedIssuer<'_, KeyPair>, uri: &str) -> Result<(String, String)> {
    let mut params = without_name();
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, ca)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Envoy would take a subject's name for a principal, too.
fn without_name() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
}

fn write(directory: &Path, name: &str, text: &str) -> Result<std::path::PathBuf> {
    let path = directory.join(name);
    fs::write(&path, text)?;
    Ok(path)
}
