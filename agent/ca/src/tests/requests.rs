//! Requests that ask for nothing that can be given.

use std::fmt::Write;

use tonic::Code;

use super::agent;
use super::ca::TestCa;
use super::client::{Ask, csr};

#[tokio::test]
async fn identities_that_are_none_are_refused() {
    let ca = TestCa::start().await;
    let (client, token) = (ca.client().await, ca.token(&agent()));
    for id in [
        "",
        "spiffe://cluster.local/ns/shop/sa/web/extra",
        "spiffe://cluster.local/ns/shop/sa/web\0",
        "spiffe://cluster.local/ns/shop/sa/w%65b",
        "spiffe://CLUSTER.local/ns/shop/sa/web",
        "Spiffe://cluster.local/ns/shop/sa/web",
        "cluster.local/ns/shop/sa/web",
    ] {
        let (code, reason) = client.refused(&Ask::impersonating(&token, id)).await;
        assert_eq!(code, Code::InvalidArgument, "{id:?}: {reason}");
    }
    let long = format!("spiffe://cluster.local/ns/shop/sa/{}", "a".repeat(4096));
    let (code, reason) = client.refused(&Ask::impersonating(&token, &long)).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(reason.len() < 512, "{reason}");
}

#[tokio::test]
async fn requests_that_nobody_has_signed_are_refused() {
    let ca = TestCa::start().await;
    let (client, token) = (ca.client().await, ca.token(&agent()));
    let (one, other) = (csr(), csr());
    let mut garbage = "-----BEGIN CERTIFICATE REQUEST-----\n".to_owned();
    writeln!(garbage, "{}", "MIIB".repeat(16)).expect("written");
    garbage.push_str("-----END CERTIFICATE REQUEST-----\n");
    let line = one.lines().nth(2).expect("a line");
    let changed = one.replace(line, other.lines().nth(2).expect("a line"));
    for csr in [
        "",
        "no PEM",
        &garbage,
        &changed,
        &format!("{one}{other}"),
        "\0",
    ] {
        let (code, reason) = client.refused(&Ask::own(&token).with_csr(csr)).await;
        assert_eq!(code, Code::InvalidArgument, "{csr:?}: {reason}");
    }
    assert!(client.ask(&Ask::own(&token).with_csr(one)).await.is_ok());
}

#[tokio::test]
async fn a_message_that_is_too_large_is_not_read() {
    let ca = TestCa::start().await;
    let ask = Ask::own(&ca.token(&agent())).with_csr("a".repeat(64 * 1024));
    assert_eq!(ca.client().await.refused(&ask).await.0, Code::OutOfRange);
    assert_eq!(ca.service.audit.counts(), Default::default());
}
