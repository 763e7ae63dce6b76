//! CUSTOM: which authorizers are consulted, and what follows from their answers.

use std::sync::Arc;

use ambit_common::Reason;
use serde_json::{Value, json};

use super::TestCaller::{Peer, Plaintext};
use super::{TestMesh, request};
use crate::{Approvals, ConnectionVerdict, Denial, RequestPermit, WorkloadPolicies};

/// A CUSTOM policy about requests for a path.
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

fn decide(
    policies: &WorkloadPolicies,
    path: &str,
    providers: &[&str],
) -> Result<RequestPermit, Denial> {
    let connection = Peer("a/b").calls(8080);
    policies.judge_request(&connection, &request("GET", path), &approved_by(providers))
}

fn admits(policies: &WorkloadPolicies, path: &str, providers: &[&str]) -> bool {
    decide(policies, path, providers).is_ok()
}

/// The providers that are consulted about a request.
fn asked(policies: &WorkloadPolicies, path: &str) -> Vec<String> {
    let connection = Peer("a/b").calls(8080);
    let all = policies.consultations_on_request(&connection, &request("GET", path));
    all.iter().map(|one| one.provider.to_string()).collect()
}

#[test]
fn an_authorizer_that_was_not_asked_has_not_allowed() {
    let policies = TestMesh::http()
        .authorize("prod/custom", custom("ext", "/admin"))
        .policies();
    assert!(!admits(&policies, "/admin", &[]));
    assert!(!admits(&policies, "/admin", &["other"]));
    assert!(admits(&policies, "/admin", &["ext"]));
    assert!(admits(&policies, "/", &[]));
    let Err(denial) = decide(&policies, "/admin", &[]) else {
        panic!("let in")
    };
    assert_eq!(denial.reason, Reason::DeniedByPolicy);
    let decider = denial.decider.expect("a rule").to_string();
    assert_eq!(decider, "AuthorizationPolicy prod/custom rule 0");
}

#[test]
fn only_requests_that_match_are_shown() {
    let policies = TestMesh::http()
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
    let denied = TestMesh::http()
        .authorize("prod/custom", custom("ext", "*"))
        .authorize("prod/deny", deny)
        .policies();
    assert!(!admits(&denied, "/", &["ext"]));
    let allow = json!({"rules": [{"to": [{"operation": {"paths": ["/a"]}}]}]});
    let allowed = TestMesh::http()
        .authorize("prod/custom", custom("ext", "*"))
        .authorize("prod/allow", allow)
        .policies();
    assert!(admits(&allowed, "/a", &["ext"]));
    assert!(!admits(&allowed, "/a", &[]));
    assert!(!admits(&allowed, "/b", &["ext"]));
}

/// As in Istio by default, what their rules match is refused and the rest is allowed.
#[test]
fn with_several_providers_none_is_asked_and_nothing_that_matches_is_let_in() {
    let mesh = || {
        TestMesh::http()
            .authorize("prod/one", custom("z", "/admin*"))
            .authorize("prod/two", custom("a", "/a*"))
    };
    let policies = mesh().policies();
    for path in ["/admin", "/a", "/"] {
        assert_eq!(asked(&policies, path), [""; 0], "{path}");
    }
    let answers: [&[&str]; 4] = [&[], &["a"], &["z"], &["a", "z"]];
    for approved in answers {
        assert!(!admits(&policies, "/admin", approved), "{approved:?}");
        assert!(!admits(&policies, "/a", approved), "{approved:?}");
        assert!(admits(&policies, "/", approved), "{approved:?}");
    }
    let conditions = mesh().index().conditions();
    for (name, other) in [
        ("one", "prod/two names another provider, \"a\""),
        ("two", "prod/one names another provider, \"z\""),
    ] {
        let shown = conditions.iter().find(|shown| &*shown.name.name == name);
        let message = shown.and_then(|shown| shown.message.clone()).expect("told");
        assert!(
            message.contains("is refused at the pod prod/web"),
            "{message}"
        );
        assert!(message.contains(other), "{message}");
    }
    assert_eq!(mesh().index().cross_check(None).len(), 2);
}

#[test]
fn providers_at_different_ports_do_not_contradict_each_other() {
    let at = |service: &str, provider: &str| {
        json!({"action": "CUSTOM", "provider": {"name": provider}, "rules": [{}],
            "targetRefs": [{"kind": "Service", "name": service}]})
    };
    let other =
        ambit_model::testing::service("prod/other", &[], 90, ambit_model::TargetPort::Number(9090));
    let mesh = || {
        TestMesh::new()
            .serve(other.clone())
            .authorize("prod/one", at("web", "one"))
            .authorize("prod/two", at("other", "two"))
    };
    let policies = mesh().policies();
    for (port, provider) in [(8080, "one"), (9090, "two")] {
        let connection = Plaintext.calls(port);
        let asked = policies.consultations_on_opaque(&connection);
        assert_eq!(asked.len(), 1, "{port}");
        let judged = policies.judge_opaque(&connection, &approved_by(&[provider]));
        assert!(judged.is_ok(), "{port}");
        super::assert_agreement(&policies, &connection);
    }
    assert_eq!(mesh().index().cross_check(None), []);
}

#[test]
fn a_second_provider_takes_back_what_the_first_has_approved() {
    let with = |providers: &[&str]| {
        let policies = providers.iter().enumerate().map(|(index, provider)| {
            let spec = json!({"action": "CUSTOM", "provider": {"name": provider}, "rules": [{}]});
            (format!("prod/custom-{index}"), spec)
        });
        policies.fold(TestMesh::new(), |mesh, (name, spec)| {
            mesh.authorize(&name, spec)
        })
    };
    let connection = Plaintext.calls(8080);
    let judge = |mesh: TestMesh| {
        let policies = mesh.policies();
        super::assert_agreement(&policies, &connection);
        policies.judge_opaque(&connection, &approved_by(&["a"]))
    };
    assert!(judge(with(&["a"])).is_ok());
    assert!(judge(with(&["a", "a"])).is_ok());
    assert!(judge(with(&["a", "b"])).is_err());
}

#[test]
fn a_provider_of_two_policies_is_asked_once() {
    let policies = TestMesh::http()
        .authorize("prod/one", custom("ext", "/x"))
        .authorize("prod/two", custom("ext", "*"))
        .policies();
    assert_eq!(asked(&policies, "/x"), ["ext"]);
    assert!(admits(&policies, "/x", &["ext"]));
}

#[test]
fn an_authorizer_sees_other_bytes_whatever_the_rule_says_about_http() {
    let policies = TestMesh::new()
        .authorize("prod/custom", custom("ext", "/admin"))
        .policies();
    let connection = Plaintext.calls(8080);
    let asked = policies.consultations_on_opaque(&connection);
    assert_eq!(asked.len(), 1);
    let judge = |providers: &[&str]| policies.judge_opaque(&connection, &approved_by(providers));
    assert!(judge(&[]).is_err());
    assert!(judge(&["ext"]).is_ok());
    let verdict = policies.judge_connection(&connection);
    assert_eq!(verdict, ConnectionVerdict::Ask);
    super::assert_agreement(&policies, &connection);
}

#[test]
fn a_port_that_no_custom_policy_applies_to_needs_no_authorizer() {
    let spec = json!({
        "action": "CUSTOM",
        "provider": {"name": "ext"},
        "rules": [{"to": [{"operation": {"ports": ["80"]}}]}],
    });
    let policies = TestMesh::new().authorize("prod/custom", spec).policies();
    assert!(policies.admits(Plaintext, 8080));
    assert!(!policies.admits(Plaintext, 80));
    assert!(
        policies
            .consultations_on_opaque(&Plaintext.calls(8080))
            .is_empty()
    );
}

#[test]
fn an_authorizer_sees_requests_on_http_ports() {
    let spec = json!({"action": "CUSTOM", "provider": {"name": "ext"}, "rules": [{}]});
    let policies = TestMesh::http().authorize("prod/custom", spec).policies();
    assert!(policies.carries_http(8080));
    assert_eq!(asked(&policies, "/"), ["ext"]);
    let deny = json!({"action": "DENY", "rules": [{"to": [{"operation": {"ports": ["80"]}}]}]});
    let without = TestMesh::http().authorize("prod/deny", deny).policies();
    assert!(!without.carries_http(8080), "nothing depends on requests");
}

#[test]
fn a_denial_by_other_policies_does_not_need_the_authorizer() {
    let strict = json!({"mtls": {"mode": "STRICT"}});
    let policies = TestMesh::http()
        .authorize("prod/custom", custom("ext", "*"))
        .authenticate("prod/default", strict)
        .policies();
    let connection = Plaintext.calls(8080);
    let decision =
        policies.judge_request(&connection, &request("GET", "/"), &approved_by(&["ext"]));
    assert!(decision.is_err());
    assert!(admits(&policies, "/", &["ext"]));
}
