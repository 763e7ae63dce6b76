//! The server's own certificate.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::ca::NAME;
use super::client::tls;
use crate::server::ServerCertificate;
use ambit_authority::{CertificateAuthority, make_root};
use ambit_model::TrustDomain;

/// Short enough to wait for half of it.
const LIFETIME: Duration = Duration::from_secs(6);

const DAY: Duration = Duration::from_secs(86_400);

fn authority() -> (Arc<CertificateAuthority>, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let domain = TrustDomain::new("cluster.local").unwrap();
    let made = make_root(&directory.path().join("ca"), &domain, DAY).unwrap();
    (Arc::new(made), directory)
}

fn certificate(
    authority: &watch::Receiver<Arc<CertificateAuthority>>,
    lifetime: Duration,
) -> Arc<ServerCertificate> {
    let names = vec![ServerName::try_from(NAME).unwrap()];
    let made = ServerCertificate::new(authority.clone(), names, lifetime);
    Arc::new(made.unwrap())
}

/// The leaf that the server shows; `None` where it does not lead to these roots.
async fn shown(
    server: &Arc<ServerCertificate>,
    authority: &CertificateAuthority,
) -> Option<CertificateDer<'static>> {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let acceptor = TlsAcceptor::from(server.tls().unwrap());
    let connector = TlsConnector::from(Arc::new(tls(authority.roots())));
    let (_, leaf) = tokio::join!(acceptor.accept(far), leaf(connector, near));
    leaf
}

async fn leaf(
    connector: TlsConnector,
    stream: impl AsyncRead + AsyncWrite + Unpin,
) -> Option<CertificateDer<'static>> {
    let name = ServerName::try_from(NAME).unwrap();
    let stream = connector.connect(name, stream).await.ok()?;
    Some(stream.get_ref().1.peer_certificates()?[0].clone())
}

#[tokio::test]
async fn another_authority_gives_the_server_another_certificate() {
    let ((first, _kept), (second, _kept_too)) = (authority(), authority());
    let (published, latest) = watch::channel(Arc::clone(&first));
    let server = certificate(&latest, DAY);
    assert!(shown(&server, &first).await.is_some());
    let following = Arc::clone(&server);
    tokio::spawn(async move { following.follow().await });
    published.send_replace(Arc::clone(&second));
    while shown(&server, &second).await.is_none() {
        tokio::task::yield_now().await;
    }
    assert!(shown(&server, &first).await.is_none());
}

#[tokio::test]
async fn it_is_renewed_before_it_ends() {
    let (authority, _kept) = authority();
    let (_published, latest) = watch::channel(Arc::clone(&authority));
    let server = certificate(&latest, LIFETIME);
    let first = shown(&server, &authority).await.unwrap();
    assert!(server.is_valid(SystemTime::now()));
    assert!(!server.is_valid(SystemTime::now() + LIFETIME));
    let following = Arc::clone(&server);
    tokio::spawn(async move { following.follow().await });
    while shown(&server, &authority).await.unwrap() == first {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
