use std::sync::Arc;
use std::time::SystemTime;

use super::server::Reply;
use super::{Scene, good};
use crate::issued::{IssueRequest, check_issued};
use crate::provider::CertificateProvider;
use crate::tests::{HOUR, Root, identity, trust};
use crate::verify::PeerVerifier;

#[tokio::test]
async fn a_good_answer_verifies_against_the_roots_that_it_contains() {
    let scene = Scene::start(good(&Arc::new(Root::make()))).await;
    let issued = scene.ask().await.unwrap();
    let anchors = scene.ca.anchors().borrow().clone();
    let verifier = PeerVerifier::new(&anchors, trust(&[])).unwrap();
    let web = identity("web");
    let question = IssueRequest {
        identity: &web,
        lifetime: HOUR,
        now: SystemTime::now(),
    };
    check_issued(issued, &question, &verifier).unwrap();
}

#[tokio::test]
async fn wrong_answers_are_refused_and_do_not_change_the_roots() {
    let root = Arc::new(Root::make());
    let scene = Scene::start(good(&root)).await;
    scene.ask().await.unwrap();
    let before = scene.ca.anchors().borrow().clone();
    let other = Arc::new(Root::make());
    let unrelated = Reply::Certificate {
        signer: Arc::clone(&root),
        roots: Root::make().pem,
    };
    let db = "spiffe://cluster.local/ns/prod/sa/db";
    let text = |texts: &[&str]| Reply::Elements(texts.iter().map(ToString::to_string).collect());
    for (reply, reason) in [
        (
            Reply::For(Arc::clone(&other), db),
            "is for cluster.local/ns/prod/sa/db",
        ),
        (Reply::Expired(Arc::clone(&other)), "expired at"),
        (Reply::OtherKey(Arc::clone(&other)), "another key"),
        (unrelated, "mesh's roots"),
        (text(&[]), "no certificate"),
        (text(&["", ""]), "no certificate"),
        (text(&["no PEM", &other.pem]), "no certificate"),
        (
            text(&["-----BEGIN CERTIFICATE-----\n!", &other.pem]),
            "cannot be read",
        ),
        (Reply::Endless(2 << 20), "refused"),
    ] {
        scene.server.reply(reply);
        let failure = scene.refused().await;
        assert!(!failure.is_of_ca(), "{failure}");
        let failure = failure.to_string();
        assert!(failure.contains(reason), "{reason}: {failure}");
        assert_eq!(*scene.ca.anchors().borrow(), before, "{failure}");
    }
}

#[tokio::test]
async fn a_refusal_says_what_to_do() {
    let scene = Scene::start(Reply::Silence).await;
    let trusted = ["CA_TRUSTED_NODE_ACCOUNTS", "--node-account"];
    let token = ["--ca-token", "audience"];
    // istiod's own words for an account that may not ask for other identities.
    let impersonation = "request impersonation authentication failure";
    for (code, text, words) in [
        (7, "not allowed", trusted),
        (16, impersonation, trusted),
        (16, "request authenticate failure", token),
    ] {
        scene.server.reply(Reply::Status(code, text));
        let failure = scene.refused().await;
        assert_eq!(failure.is_of_ca(), words == token, "{failure}");
        let failure = failure.to_string();
        assert!(words.iter().all(|word| failure.contains(word)), "{failure}");
        assert!(failure.contains(text), "{failure}");
    }
    for (code, is_of_ca) in [(14, true), (8, true), (3, false), (13, false)] {
        scene.server.reply(Reply::Status(code, "busy"));
        assert_eq!(scene.refused().await.is_of_ca(), is_of_ca, "{code}");
    }
}

#[tokio::test]
async fn a_request_can_succeed_after_a_refusal() {
    let scene = Scene::start(Reply::Status(7, "no")).await;
    scene.refused().await;
    scene.server.reply(good(&Arc::new(Root::make())));
    scene.ask().await.unwrap();
}
