//! Authentication and pods from the stand-in of [`super::api_server`].

use serde_json::{Value, json};
use tonic::Code;

use super::api_server::{ApiServer, pod_object};
use super::ca::TestCa;
use super::{AGENT, account, agent};
use crate::caller::{AuthenticatedCaller, OnlineReviewer, TokenReviewer};
use crate::pods::{PodDirectory, follow_cluster};
use crate::tests::ca::Ask;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const TOKEN: &str = "header.payload.signature";

fn status(caller: &AuthenticatedCaller) -> Value {
    let account = &caller.account;
    json!({
        "authenticated": true,
        "audiences": ["istio-ca"],
        "user": {
            "username": format!("system:serviceaccount:{}:{}", account.namespace(), account.name()),
            "extra": {
                "authentication.kubernetes.io/pod-name": [&*caller.pod.name.name],
                "authentication.kubernetes.io/pod-uid": [&*caller.pod.uid],
                "authentication.kubernetes.io/node-name": [caller.node.as_deref().unwrap()],
            },
        },
    })
}

/// A CA that uses this API server for both tokens and pods.
pub(super) async fn ca(api: &ApiServer) -> (TestCa, PodDirectory) {
    let pods = PodDirectory::default();
    tokio::spawn(follow_cluster(api.client(), pods.clone()));
    let known = pods.clone();
    let client = api.client();
    let ca = TestCa::start_with(move |settings| {
        settings.pods = known;
        let reviewer = OnlineReviewer::new(client, "istio-ca".to_owned());
        settings.reviewer = TokenReviewer::Online(reviewer);
    });
    (ca.await, pods)
}

/// Waits until `shop/web` is known to run on the first node, or not to.
async fn until(pods: &PodDirectory, runs: bool) {
    let web = account("shop/web");
    while pods.look(|pods| pods.runs_on("node-1", &web)) != Ok(runs) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn tokens_and_pods_come_from_the_api_server() {
    let api = ApiServer::start(vec![
        pod_object(AGENT, "agent-1", "node-1"),
        pod_object("shop/web", "web-0", "node-2"),
    ])
    .await;
    let (ca, pods) = ca(&api).await;
    api.review(TOKEN, status(&agent()));
    let (client, ask) = (ca.client().await, Ask::impersonating(TOKEN, WEB));
    until(&pods, false).await;
    assert_eq!(client.refused(&ask).await.0, Code::PermissionDenied);
    api.tell("ADDED", pod_object("shop/web", "web-1", "node-1"))
        .await;
    until(&pods, true).await;
    client.ask(&ask).await.unwrap();
    api.tell("DELETED", pod_object("shop/web", "web-1", "node-1"))
        .await;
    until(&pods, false).await;
    assert_eq!(client.refused(&ask).await.0, Code::PermissionDenied);
    // One review serves several calls.
    assert_eq!(api.asked(), 1);
}

#[tokio::test]
async fn a_token_that_is_not_accepted_is_reviewed_each_time() {
    let api = ApiServer::start(vec![pod_object(AGENT, "agent-1", "node-1")]).await;
    let (ca, pods) = ca(&api).await;
    until(&pods, false).await;
    let client = ca.client().await;
    let mut of_other_audience = status(&agent());
    of_other_audience["audiences"] = json!(["api"]);
    api.review(TOKEN, of_other_audience);
    for token in [TOKEN, "another.unknown.token", TOKEN] {
        let (code, reason) = client.refused(&Ask::own(token)).await;
        assert_eq!(code, Code::Unauthenticated);
        assert!(reason.contains("does not accept"), "{reason}");
    }
    assert_eq!(api.asked(), 3);
    api.review(TOKEN, status(&agent()));
    assert!(client.ask(&Ask::own(TOKEN)).await.is_ok());
}

#[tokio::test]
async fn without_an_answer_no_caller_is_authenticated() {
    let api = ApiServer::start(Vec::new()).await;
    let (ca, _) = ca(&api).await;
    api.review(TOKEN, json!("no status"));
    let (code, reason) = ca.client().await.refused(&Ask::own(TOKEN)).await;
    assert_eq!(code, Code::Unavailable);
    assert!(
        reason.contains("could not be checked") && !reason.contains(TOKEN),
        "{reason}"
    );
}
