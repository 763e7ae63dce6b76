//! The server: its own certificate, its connections, and how it stops.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::Code;

use crate::server::ServerCertificate;
use crate::tests::ca::{Ask, Client, NAME, TestCa, tls};
use crate::tests::sidecar;
use ambit_authority::{CertificateAuthority, make_root};
use ambit_model::TrustDomain;

#[tokio::test]
async fn the_server_is_verified_by_its_root_and_name() {
    let (ca, other) = (TestCa::start().await, TestCa::start().await);
    assert!(Client::connect(ca.server, ca.roots(), NAME).await.is_ok());
    assert!(
        Client::connect(ca.server, other.roots(), NAME)
            .await
            .is_err()
    );
    assert!(
        Client::connect(ca.server, ca.roots(), "ca.example")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn only_http_2_is_spoken() {
    let ca = TestCa::start().await;
    let mut config = tls(ca.roots());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(ca.server).await.unwrap();
    let name = ServerName::try_from(NAME).unwrap();
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    assert!(handshake.await.is_err());
}

#[tokio::test]
async fn other_calls_are_not_served() {
    let ca = TestCa::start().await;
    let ask = Ask::own(&ca.token(&sidecar()));
    let client = ca.client().await;
    let called = client.ask_at("/istio.v1.auth.Other/Create", &ask);
    assert_eq!(called.await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn it_stops_on_request_and_closes_its_connections() {
    let mut ca = TestCa::start().await;
    let client = ca.client().await;
    let ask = Ask::own(&ca.token(&sidecar()));
    assert!(client.ask(&ask).await.is_ok());
    // A connection on which nothing is sent does not keep the server running.
    let mut silent = TcpStream::connect(ca.server).await.unwrap();
    ca.end().await;
    assert!(client.ask(&ask).await.is_err());
    assert!(!matches!(silent.read(&mut [0; 1]).await, Ok(1..)));
    assert!(TcpStream::connect(ca.server).await.is_err());
}

#[tokio::test]
async fn strangers_do_not_shut_out_an_address_that_many_share() {
    // More than there are slots for strangers.
    const STRANGERS: usize = 1100;
    let ca = TestCa::start().await;
    let mut strangers = Vec::new();
    for _ in 0..STRANGERS {
        strangers.push(TcpStream::connect(ca.server).await.unwrap());
    }
    let client = ca.client().await;
    let ask = Ask::own(&ca.token(&sidecar()));
    assert!(client.ask(&ask).await.is_ok());
    // Strangers that come later do not end the connection of a known caller either.
    for _ in 0..STRANGERS {
        strangers.push(TcpStream::connect(ca.server).await.unwrap());
    }
    assert!(client.ask(&ask).await.is_ok());
}

/// Short enough for a test to wait for half of it.
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

/// The leaf that the server presents; `None` if it does not lead to these roots.
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
async fn a_change_of_the_ca_replaces_the_servers_certificate() {
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
async fn it_is_renewed_before_it_expires() {
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
