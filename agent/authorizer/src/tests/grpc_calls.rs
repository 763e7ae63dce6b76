//! Calls that fail, and the connections they are made on.

use super::grpc::{grpc, ok};
use super::grpc_server::{GrpcServer, Reply};
use super::*;
use crate::envoy::OkHttpResponse;

#[tokio::test(flavor = "local")]
async fn failed_calls() {
    let asked = TestCheck::new();
    for reply in [
        Reply::Code(7),
        Reply::Code(16),
        Reply::Status(403),
        Reply::Status(401),
    ] {
        let server = GrpcServer::replying(reply).await;
        let denial = denied(at(&[server.address]).check(&grpc(), &asked.check()).await);
        assert_eq!(denial.status, StatusCode::FORBIDDEN);
    }
    for (reply, word) in [
        (Reply::Code(3), "authorizer-check-not-taken"),
        (Reply::Code(8), "authorizer-check-not-taken"),
        (Reply::Code(12), "authorizer-failed"),
        (Reply::Code(13), "authorizer-failed"),
        (Reply::Code(14), "authorizer-unreachable"),
        (Reply::Status(500), "authorizer-failed"),
        (Reply::Status(503), "authorizer-unreachable"),
        (Reply::Bytes(b"\x0a\xff\xff"), "authorizer-malformed"),
        (Reply::Bytes(b"HTTP/1.1 200 OK"), "authorizer-malformed"),
    ] {
        let server = GrpcServer::replying(reply.clone()).await;
        let error = unanswered(at(&[server.address]).check(&grpc(), &asked.check()).await);
        assert_eq!(error.as_str(), word, "{reply:?}: {error}");
    }
}

/// A message in gRPC framing.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("short");
    [&[0][..], &length.to_be_bytes(), message].concat()
}

const GOOD: Option<&[(&str, &str)]> = Some(&[("grpc-status", "0")]);

/// `CheckResponse` messages with the statuses 0 and 7.
const ALLOW: &[u8] = b"\x0a\x00";
const DENY: &[u8] = b"\x0a\x02\x08\x07";

#[tokio::test(flavor = "local")]
async fn answers_are_read_strictly() {
    let asked = TestCheck::new();
    let allow = framed(ALLOW);
    let compressed = [&[1, 0, 0, 0, 2][..], ALLOW].concat();
    for (case, status, body, trailers) in [
        ("an HTTP status other than 200", 201, allow.clone(), GOOD),
        ("403 of HTTP", 403, allow.clone(), GOOD),
        ("500 of HTTP", 500, allow.clone(), GOOD),
        ("a second message", 200, [&allow[..], &allow].concat(), GOOD),
        (
            "a denial as second",
            200,
            [&allow[..], &framed(DENY)].concat(),
            GOOD,
        ),
        (
            "a byte behind the message",
            200,
            [&allow[..], b"\0"].concat(),
            GOOD,
        ),
        ("half a message", 200, allow[..6].to_vec(), GOOD),
        ("no message", 200, Vec::new(), GOOD),
        ("a compressed message", 200, compressed, GOOD),
        ("no trailers", 200, allow.clone(), None),
        (
            "trailers without a status",
            200,
            allow.clone(),
            Some(&[("x", "0")][..]),
        ),
        (
            "two statuses",
            200,
            allow.clone(),
            Some(&[("grpc-status", "0"), ("grpc-status", "7")]),
        ),
        (
            "the same status twice",
            200,
            allow.clone(),
            Some(&[("grpc-status", "0"), ("grpc-status", "0")]),
        ),
        (
            "a status that is not a number",
            200,
            allow.clone(),
            Some(&[("grpc-status", "OK")]),
        ),
        (
            "a status with a sign",
            200,
            allow.clone(),
            Some(&[("grpc-status", "+0")]),
        ),
        (
            "an error after permission",
            200,
            allow.clone(),
            Some(&[("grpc-status", "13")]),
        ),
    ] {
        let server = GrpcServer::replying(Reply::Raw(status, body, trailers)).await;
        let outcome = at(&[server.address])
            .decide(&fail_open(grpc()), &asked.check())
            .await;
        // A server's 5xx means that it failed.
        let is_right = match &outcome {
            CheckOutcome::LetThrough(_) => status == 500,
            CheckOutcome::Deny(_) | CheckOutcome::Refuse { .. } => status != 500,
            CheckOutcome::Allow(_) => false,
        };
        assert!(is_right, "{case}: {outcome:?}");
    }
    let server = GrpcServer::replying(Reply::Raw(200, allow, GOOD)).await;
    allowed(at(&[server.address]).check(&grpc(), &asked.check()).await);
}

/// Nothing that follows a denial turns it into anything else.
#[tokio::test(flavor = "local")]
async fn a_denial_stands_whatever_follows_it() {
    let asked = TestCheck::new();
    let deny = framed(DENY);
    for (case, body, trailers) in [
        ("an error", deny.clone(), Some(&[("grpc-status", "13")][..])),
        ("no trailers", deny.clone(), None),
        ("a permission", [&deny[..], &framed(ALLOW)].concat(), GOOD),
        ("half a message", [&deny[..], b"\0\0"].concat(), GOOD),
        (
            "a status twice",
            deny.clone(),
            Some(&[("grpc-status", "0"), ("grpc-status", "0")]),
        ),
    ] {
        let server = GrpcServer::replying(Reply::Raw(200, body, trailers)).await;
        let outcome = at(&[server.address])
            .decide(&fail_open(grpc()), &asked.check())
            .await;
        assert!(
            matches!(outcome, CheckOutcome::Deny(_)),
            "{case}: {outcome:?}"
        );
    }
}

#[tokio::test(flavor = "local")]
async fn many_checks_share_a_connection_and_a_broken_one_is_replaced() {
    let allow = Reply::Message(Box::new(ok(OkHttpResponse::default())));
    let replies = vec![allow.clone(), allow.clone(), Reply::HangUp, allow];
    let server = GrpcServer::with(replies).await;
    let (authorizer, provider, asked) = (at(&[server.address]), grpc(), TestCheck::new());
    let check = asked.check();
    let both = tokio::join!(
        authorizer.check(&provider, &check),
        authorizer.check(&provider, &check)
    );
    allowed(both.0);
    allowed(both.1);
    assert_eq!(server.connections(), 1);
    allowed(authorizer.check(&provider, &check).await);
    allowed(authorizer.check(&provider, &check).await);
    assert_eq!(server.connections(), 2);
}

#[tokio::test(flavor = "local")]
async fn another_endpoint_is_asked_if_one_cannot_be_reached() {
    let server = GrpcServer::answering(ok(OkHttpResponse::default())).await;
    let addresses = [GONE, server.address];
    // The first endpoint is chosen at random.
    for _ in 0..8 {
        let authorizer = at(&addresses);
        allowed(authorizer.check(&grpc(), &TestCheck::new().check()).await);
        allowed(authorizer.check(&grpc(), &TestCheck::new().check()).await);
    }
    assert_eq!(server.connections(), 8);
}
