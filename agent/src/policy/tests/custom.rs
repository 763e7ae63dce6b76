//! CUSTOM: whom a connection or a request is shown, and what comes of their answers.

use std::sync::Arc;

use ambit_common::Reason;
use serde_json::{Value, json};

use super::Caller::{Peer, Plaintext};
use super::{Mesh, request};
use crate::policy::{Approvals, ConnectionVerdict, Decision, RequestDecision, WorkloadPolicies};

/// A CUSTOM policy on requests for a path.
fn custom(provider: &str, path: &str) -> Value {
    json!({
        "action": "CUSTOM",
        "provider": {"name": provider},
        "rules": [{"to": [{"operation": {"paths": [path]}}]}],
    })
}

fn approved_by(providers: &[&str]) -> Approvals {
    let mut approvals = Approvals::default();
    for provider in providers {
        approvals.add(Arc::from(*provider));
    }
    approvals
}

fn decide(policies: &WorkloadPolicies, path: &str, providers: &[&str]) -> RequestDecision {
    let connection = Peer("a/b").calls(8080);
    policies.judge_request(&connection, &request("GET", path), &approved_by(providers))
}

fn admits(policies: &WorkloadPolicies, path: &str, providers: &[&str]) -> bool {
    matches!(decide(policies, path, providers), RequestDecision::Allow(_))
}

/// The providers that a request is shown.
fn asked(policies: &WorkloadPolicies, path: &str) -> Vec<String> {
    let connection = Peer("a/b").calls(8080);
    let all = policies.consultations_on_request(&connection, &request("GET", path));
    all.iter().map(|one| one.provider.to_string()).collect()
}

#[test]
fn whoever_is_not_asked_has_not_allowed() {
    let policies = Mesh::http()
        .authorize("prod/custom", custom("ext", "/admin"))
        .policies();
    assert!(!admits(&policies, "/admin", &[]));
    assert!(!admits(&policies, "/admin", &["other"]));
    assert!(admits(&policies, "/admin", &["ext"]));
    assert!(admits(&policies, "/", &[]));
    let RequestDecision::Deny(denial) = decide(&policies, "/admin", &[]) else {
        panic!("let in")
    };
    assert_eq!(denial.reason, Reason::DeniedByPolicy);
    let decider = denial.decider.expect("a rule").to_string();
    assert_eq!(decider, "AuthorizationPolicy prod/custom rule 0");
}

#[test]
fn only_requests_that_match_are_shown() {
    let policies = Mesh::http()
        .authorize("prod/custom", custom("ext", "/admin"))
        .policies();
    assert_eq!(asked(&policies, "/admin"), ["ext"]);
    assert_eq!(asked(&policies, "/"), [""; 0]);
    let connection = Peer("a/b").calls(8080);
    let [consultation] =
        &policies.consultations_on_request(&connection, &request("GET", "/admin"))[..]
    else {
        panic!("one")
    };
    assert_eq!(consultation.decider.rule, Some(0));
    assert_eq!(&*consultation.decider.name.name, "custom");
}

#[test]
fn an_approval_opens_nothing_that_the_rest_closes() {
    let deny = json!({"action": "DENY", "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]});
    let denied = Mesh::http()
        .authorize("prod/custom", custom("ext", "*"))
        .authorize("prod/deny", deny)
        .policies();
    assert!(!admits(&denied, "/", &["ext"]));
    let allow = json!({"rules": [{"to": [{"operation": {"paths": ["/a"]}}]}]});
    let allowed = Mesh::http()
        .authorize("prod/custom", custom("ext", "*"))
        .authorize("prod/allow", allow)
        .policies();
    assert!(admits(&allowed, "/a", &["ext"]));
    assert!(!admits(&allowed, "/a", &[]));
    assert!(!admits(&allowed, "/b", &["ext"]));
}

#[test]
fn each_provider_has_to_allow() {
    let policies = Mesh::http()
        .authorize("prod/one", custom("z", "/admin*"))
        .authorize("prod/two", custom("a", "*"))
        .policies();
    assert_eq!(asked(&policies, "/admin"), ["a", "z"]);
    assert_eq!(asked(&policies, "/"), ["a"]);
    assert!(!admits(&policies, "/admin", &["a"]));
    assert!(!admits(&policies, "/admin", &["z"]));
    assert!(admits(&policies, "/admin", &["a", "z"]));
    assert!(admits(&policies, "/", &["a"]));
}

#[test]
fn a_provider_of_two_policies_is_asked_once() {
    let policies = Mesh::http()
        .authorize("prod/one", custom("ext", "/x"))
        .authorize("prod/two", custom("ext", "*"))
        .policies();
    assert_eq!(asked(&policies, "/x"), ["ext"]);
    assert!(admits(&policies, "/x", &["ext"]));
}

#[test]
fn what_is_not_http_is_shown_whatever_the_rule_says_of_http() {
    let policies = Mesh::new()
        .authorize("prod/custom", custom("ext", "/admin"))
        .policies();
    let connection = Plaintext.calls(8080);
    let asked = policies.consultations_on_opaque(&connection);
    assert_eq!(asked.len(), 1);
    let judge = |providers: &[&str]| policies.judge_opaque(&connection, &approved_by(providers));
    assert!(matches!(judge(&[]), Decision::Deny(_)));
    assert!(matches!(judge(&["ext"]), Decision::Allow(_)));
    let verdict = policies.judge_connection(&connection);
    assert_eq!(verdict, ConnectionVerdict::Ask);
    super::agreement::assert_agreement(&policies, &connection);
}

#[test]
fn a_port_that_is_not_meant_asks_nobody() {
    let spec = json!({
        "action": "CUSTOM",
        "provider": {"name": "ext"},
        "rules": [{"to": [{"operation": {"ports": ["80"]}}]}],
    });
    let policies = Mesh::new().authorize("prod/custom", spec).policies();
    assert!(policies.admits(Plaintext, 8080));
    assert!(!policies.admits(Plaintext, 80));
    assert!(
        policies
            .consultations_on_opaque(&Plaintext.calls(8080))
            .is_empty()
    );
}

#[test]
fn an_authorizer_is_shown_requests_where_a_port_has_them() {
    let spec = json!({"action": "CUSTOM", "provider": {"name": "ext"}, "rules": [{}]});
    let policies = Mesh::http().authorize("prod/custom", spec).policies();
    assert!(policies.carries_http(8080));
    assert_eq!(asked(&policies, "/"), ["ext"]);
    let deny = json!({"action": "DENY", "rules": [{"to": [{"operation": {"ports": ["80"]}}]}]});
    let without = Mesh::http().authorize("prod/deny", deny).policies();
    assert!(!without.carries_http(8080), "nothing depends on requests");
}

#[test]
fn a_denial_without_asking_is_none_of_an_authorizers_business() {
    let strict = json!({"mtls": {"mode": "STRICT"}});
    let policies = Mesh::http()
        .authorize("prod/custom", custom("ext", "*"))
        .authenticate("prod/default", strict)
        .policies();
    let connection = Plaintext.calls(8080);
    let decision =
        policies.judge_request(&connection, &request("GET", "/"), &approved_by(&["ext"]));
    assert!(matches!(decision, RequestDecision::Deny(_)));
    assert!(admits(&policies, "/", &["ext"]));
}
