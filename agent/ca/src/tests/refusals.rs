//! Requests and tokens that are refused.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tonic::Code;

use crate::tests::ca::{Ask, TestCa, claims, csr, seconds};
use crate::tests::{agent, sidecar};
use ambit_jwt::testing::{TestIssuer, unsigned};

#[tokio::test]
async fn invalid_identities_are_refused() {
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
async fn requests_without_a_valid_signature_are_refused() {
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

fn with(field: &str, value: Value) -> Value {
    let mut claims = claims(&sidecar());
    claims[field] = value;
    claims
}

/// Asserts that a token is refused for this reason, and not repeated in the message.
async fn assert_refused(ca: &TestCa, token: &str, because: &str) {
    let (code, reason) = ca.client().await.refused(&Ask::own(token)).await;
    assert_eq!(code, Code::Unauthenticated, "{reason}");
    assert!(reason.contains(because), "{because:?} is not in {reason:?}");
    assert!(!reason.contains(token));
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let ca = TestCa::start().await;
    assert!(
        ca.client()
            .await
            .ask(&Ask::own(&ca.token(&sidecar())))
            .await
            .is_ok()
    );
    let claims = claims(&sidecar());
    let by_another = TestIssuer::ec("P-256").token(&claims);
    assert_refused(&ca, &by_another, "not signed by a key").await;
    for algorithm in ["none", "None", ""] {
        let none = unsigned(&json!({"alg": algorithm}), &claims);
        assert_refused(&ca, &format!("{none}."), "not supported").await;
    }
    // Signed with the issuer's public key as if it were a shared secret.
    let signed = unsigned(&json!({"alg": "HS256"}), &claims);
    let public = ca.issuer.jwk().to_string();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, public.as_bytes());
    let signature = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
    let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()));
    assert_refused(&ca, &forged, "not supported").await;
    // Another caller's claims with this caller's signature.
    let genuine = ca.token(&sidecar());
    let signature = genuine.rsplit_once('.').expect("three parts").1;
    let other = unsigned(
        &json!({"alg": "ES256", "typ": "JWT"}),
        &with("sub", json!("system:serviceaccount:mesh:agent")),
    );
    assert_refused(&ca, &format!("{other}.{signature}"), "not signed by a key").await;
}

#[tokio::test]
async fn tokens_that_are_expired_or_for_others_are_refused() {
    let ca = TestCa::start().await;
    let now = seconds();
    for (field, value, because) in [
        ("exp", json!(now - 61), "has expired"),
        ("nbf", json!(now + 120), "not valid yet"),
        ("aud", json!(["api"]), "other audiences"),
        ("aud", json!([]), "other audiences"),
        ("iss", json!("https://other.example"), "not this cluster's"),
        ("sub", json!("alice"), "not of a service account"),
        (
            "sub",
            json!("system:serviceaccount:shop:db"),
            "contradicts itself",
        ),
        ("kubernetes.io", Value::Null, "contradicts itself"),
    ] {
        let token = ca.issuer.token(&with(field, value));
        assert_refused(&ca, &token, because).await;
    }
    let long = ca.issuer.token(&with("iss", json!("\u{e9}".repeat(4096))));
    assert_refused(&ca, &long, "not this cluster's").await;
    let mut endless = claims(&sidecar());
    endless.as_object_mut().expect("claims").remove("exp");
    assert_refused(&ca, &ca.issuer.token(&endless), "does not expire").await;
    let mut unbound = claims(&sidecar());
    unbound["kubernetes.io"]["pod"] = Value::Null;
    assert_refused(&ca, &ca.issuer.token(&unbound), "bound to no pod").await;
}

#[tokio::test]
async fn exactly_one_token_in_the_right_scheme_is_accepted() {
    let ca = TestCa::start().await;
    let (client, token) = (ca.client().await, ca.token(&sidecar()));
    let bearer = format!("Bearer {token}");
    for authorization in [
        vec![],
        vec![bearer.clone(), bearer.clone()],
        vec![bearer, "Bearer x".to_owned()],
        vec![format!("Basic {token}")],
        vec![format!("bearer {token}")],
        vec![token.clone()],
        vec![format!("Bearer {}", "a".repeat(16 * 1024 + 1))],
    ] {
        let ask = Ask {
            authorization,
            ..Ask::own(&token)
        };
        let (code, reason) = client.refused(&ask).await;
        assert_eq!(code, Code::Unauthenticated, "{reason}");
        assert!(!reason.contains(&token));
    }
    assert_eq!(ca.service.audit.counts().unauthenticated, 7);
}
