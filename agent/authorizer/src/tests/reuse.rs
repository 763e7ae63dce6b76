//! Connections to HTTP authorizers are used again only if nothing can still arrive on them.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::http_server::{HttpServer, careless, chatty};
use super::*;

fn http() -> ExtensionProvider {
    provider(http_api())
}

/// A request whose response may leave something behind.
fn asked(method: Method, path: &'static str, body: Option<&'static str>) -> TestCheck {
    TestCheck {
        method,
        path,
        body: body.map(|body| BodyPart {
            bytes: Bytes::from_static(body.as_bytes()),
            extent: BodyExtent::Whole,
        }),
        ..TestCheck::new()
    }
}

/// A late response would be taken for the answer to the next check, and it allows.
#[tokio::test(flavor = "local")]
async fn a_late_response_does_not_answer_the_next_check() {
    for (method, path, body) in [
        (Method::HEAD, "/deny", None),
        (Method::HEAD, "/allow", None),
        (Method::GET, "/204", None),
        (Method::GET, "/304", None),
        // A body that the server does not read is the next request for it.
        (Method::POST, "/deny", Some("GET /allow HTTP/1.1\r\n\r\n")),
    ] {
        let (address, connections) = careless().await;
        let authorizer = at(&[address]);
        let first = asked(method.clone(), path, body);
        let _ = authorizer.check(&http(), &first.check()).await;
        let second = asked(Method::GET, "/secret", None);
        let answer = authorizer.check(&http(), &second.check()).await;
        assert!(
            matches!(answer, AuthorizerAnswer::Deny(_)),
            "after {method} {path}: {answer:?}"
        );
        assert_eq!(connections.load(Ordering::Relaxed), 2, "{method} {path}");
    }
}

#[tokio::test(flavor = "local")]
async fn a_connection_is_not_shared_between_callers() {
    let server = HttpServer::answering(::http::Response::new("")).await;
    let authorizer = at(&[server.address]);
    let one = TestCheck::new();
    let other = TestCheck {
        source: "cluster.local/ns/shop/sa/other"
            .parse()
            .expect("an identity"),
        ..TestCheck::new()
    };
    for asked in [&one, &other, &one, &other] {
        allowed(authorizer.check(&http(), &asked.check()).await);
    }
    assert_eq!(server.connections(), 2);
}

#[tokio::test(flavor = "local")]
async fn a_connection_that_received_something_while_idle_is_closed() {
    let (address, connections) = chatty().await;
    let authorizer = at(&[address]);
    for asked in 1..=3 {
        denied(authorizer.check(&http(), &TestCheck::new().check()).await);
        assert_eq!(connections.load(Ordering::Relaxed), asked);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
