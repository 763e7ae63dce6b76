//! Calls that fail, and the connections on which they are made.

use super::grpc::{grpc, ok};
use super::grpc_server::{GrpcServer, Reply};
use super::*;
use crate::authorizer::envoy::OkHttpResponse;

#[tokio::test(flavor = "local")]
async fn failed_calls() {
    let asked = Asked::new();
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
        (Reply::Bytes(b"\x0a\xff\xff"), "authorizer-failed"),
        (Reply::Bytes(b"HTTP/1.1 200 OK"), "authorizer-failed"),
    ] {
        let server = GrpcServer::replying(reply.clone()).await;
        let error = unanswered(at(&[server.address]).check(&grpc(), &asked.check()).await);
        assert_eq!(error.as_str(), word, "{reply:?}: {error}");
    }
}

#[tokio::test(flavor = "local")]
async fn many_checks_share_a_connection_and_a_broken_one_is_replaced() {
    let allow = Reply::Message(Box::new(ok(OkHttpResponse::default())));
    let replies = vec![allow.clone(), allow.clone(), Reply::HangUp, allow];
    let server = GrpcServer::with(replies).await;
    let (authorizer, provider, asked) = (at(&[server.address]), grpc(), Asked::new());
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
async fn another_endpoint_is_asked_where_one_cannot_be_reached() {
    let server = GrpcServer::answering(ok(OkHttpResponse::default())).await;
    let addresses = [GONE, server.address];
    // Where it begins is chance.
    for _ in 0..8 {
        let authorizer = at(&addresses);
        allowed(authorizer.check(&grpc(), &Asked::new().check()).await);
        allowed(authorizer.check(&grpc(), &Asked::new().check()).await);
    }
    assert_eq!(server.connections(), 8);
}
