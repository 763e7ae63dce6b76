//! Connections: whom the server is known by, and how it ends.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Code;

use super::ca::{NAME, TestCa};
use super::client::{Ask, Client, tls};
use super::sidecar;

#[tokio::test]
async fn the_server_is_known_by_its_root_and_name_only() {
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
async fn it_ends_when_it_is_told_to_with_its_connections() {
    let mut ca = TestCa::start().await;
    let client = ca.client().await;
    let ask = Ask::own(&ca.token(&sidecar()));
    assert!(client.ask(&ask).await.is_ok());
    // One that never says anything does not keep it.
    let mut silent = TcpStream::connect(ca.server).await.unwrap();
    ca.end().await;
    assert!(client.ask(&ask).await.is_err());
    assert!(!matches!(silent.read(&mut [0; 1]).await, Ok(1..)));
    assert!(TcpStream::connect(ca.server).await.is_err());
}

#[tokio::test]
async fn strangers_do_not_shut_out_an_address_that_many_share() {
    // More than all strangers get together.
    const STRANGERS: usize = 1100;
    let ca = TestCa::start().await;
    let mut strangers = Vec::new();
    for _ in 0..STRANGERS {
        strangers.push(TcpStream::connect(ca.server).await.unwrap());
    }
    let client = ca.client().await;
    let ask = Ask::own(&ca.token(&sidecar()));
    assert!(client.ask(&ask).await.is_ok());
    // Nor does what comes after a caller is known end its connection.
    for _ in 0..STRANGERS {
        strangers.push(TcpStream::connect(ca.server).await.unwrap());
    }
    assert!(client.ask(&ask).await.is_ok());
}
