//! The audit log.

use std::io;
use std::sync::{Arc, Mutex};

use http::HeaderMap;
use serde_json::Value;
use tracing::instrument::WithSubscriber;

use super::api_server::ApiServer;
use super::ca::{TestCa, seconds};
use super::{agent, online, sidecar};
use crate::tests::ca::Ask;
use ambit_observe::logging::AUDIT_TARGET;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// Collects what is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Everything that a call logs at the most verbose level, and the audit line.
async fn logged(ca: &TestCa, ask: &Ask) -> (String, Value) {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let mut headers = HeaderMap::new();
    for value in &ask.authorization {
        headers.append("authorization", value.parse().unwrap());
    }
    let peer = ([192, 0, 2, 1], 999).into();
    // Both results are logged.
    let _ = ca
        .service
        .create_certificate(peer, &headers, &ask.request, &|_| ())
        .with_subscriber(subscriber)
        .await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let parsed = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let mut audit = parsed.filter(|line: &Value| line["target"] == AUDIT_TARGET);
    let line = audit.next().expect("a line");
    assert_eq!(audit.next(), None);
    (text.clone(), line["fields"].clone())
}

#[tokio::test]
async fn an_issued_certificate_is_logged_with_its_caller() {
    let ca = TestCa::start().await;
    let ask = Ask::impersonating(&ca.token(&agent()), WEB).lasting(60);
    let before = seconds();
    let (_, line) = logged(&ca, &ask).await;
    for (field, value) in [
        ("message", "certificate issued"),
        ("peer", "192.0.2.1:999"),
        ("account", "mesh/agent"),
        ("pod", "mesh/agent-1"),
        ("uid", "uid-of-agent-1"),
        ("node", "node-1"),
        ("identity", "cluster.local/ns/shop/sa/web"),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    assert_eq!(line["serial"].as_str().unwrap().len(), 32);
    assert_eq!(line["key"].as_str().unwrap().len(), 64);
    assert!((before + 60..=seconds() + 60).contains(&line["not_after"].as_u64().unwrap()));
}

#[tokio::test]
async fn a_refusal_is_logged_with_its_reason() {
    let ca = TestCa::start().await;
    let ask = Ask::impersonating(&ca.token(&sidecar()), WEB);
    let (_, line) = logged(&ca, &ask).await;
    assert_eq!(line["message"], "certificate refused");
    assert_eq!(line["account"], "shop/web");
    assert_eq!(line["code"], "PermissionDenied");
    assert_eq!(line["identity"], "cluster.local/ns/shop/sa/web");
    assert!(
        line["reason"]
            .as_str()
            .unwrap()
            .contains("its own identity only")
    );
}

#[tokio::test]
async fn tokens_are_never_logged() {
    let ca = TestCa::start().await;
    let genuine = ca.token(&sidecar());
    let (signed, _) = genuine.rsplit_once('.').unwrap();
    let forged = format!("{signed}.AAAA");
    for token in [&genuine, &forged, &"a".repeat(40)] {
        let (text, _) = logged(&ca, &Ask::own(token)).await;
        for part in token.split('.').filter(|part| part.len() > 8) {
            assert!(!text.contains(part));
        }
    }
}

#[tokio::test]
async fn a_token_in_a_malformed_answer_of_the_api_server_is_not_logged() {
    let api = ApiServer::start(Vec::new()).await;
    let (ca, _) = online::ca(&api).await;
    let token = "header.payload-of-the-token.signature";
    api.review(token, serde_json::json!("no status"));
    let (text, line) = logged(&ca, &Ask::own(token)).await;
    assert_eq!(line["code"], "Unavailable");
    assert!(!text.contains("payload-of-the-token"), "{text}");
}
