//! What is noted: AUDIT, and dry runs.

use serde_json::{Value, json};

use super::TestCaller::{Peer, Plaintext};
use super::{TestMesh, request};
use crate::{ConnectionVerdict, WorkloadPolicies};

fn policy(action: &str, path: &str) -> Value {
    json!({"action": action, "rules": [{"to": [{"operation": {"paths": [path]}}]}]})
}

fn notes(policies: &WorkloadPolicies, path: &str) -> Vec<String> {
    let connection = Peer("a/b").calls(8080);
    let notes = policies.notes_on_request(&connection, &request("GET", path));
    notes.iter().map(ToString::to_string).collect()
}

#[test]
fn an_audit_rule_is_noted_and_decides_nothing() {
    let policies = TestMesh::http()
        .authorize("prod/audit", policy("AUDIT", "/a"))
        .policies();
    assert_eq!(
        notes(&policies, "/a"),
        ["audited by AuthorizationPolicy prod/audit rule 0"]
    );
    assert_eq!(notes(&policies, "/b"), [""; 0]);
    for path in ["/a", "/b"] {
        assert!(
            policies.admits_request(Plaintext, &request("GET", path)),
            "{path}"
        );
    }
}

#[test]
fn every_audit_policy_that_matches_is_noted() {
    let policies = TestMesh::http()
        .authorize("prod/one", policy("AUDIT", "/a"))
        .authorize("prod/two", policy("AUDIT", "/*"))
        .authorize("prod/three", policy("AUDIT", "/b"))
        .policies();
    assert_eq!(
        notes(&policies, "/a"),
        [
            "audited by AuthorizationPolicy prod/one rule 0",
            "audited by AuthorizationPolicy prod/two rule 0",
        ]
    );
}

#[test]
fn an_audit_policy_without_rules_is_legal_and_notes_nothing() {
    let policies = TestMesh::http()
        .authorize("prod/policy", json!({"action": "AUDIT"}))
        .policies();
    assert_eq!(notes(&policies, "/"), [""; 0]);
    assert!(policies.admits(Plaintext, 8080));
}

#[test]
fn what_a_dry_run_would_have_denied_is_noted() {
    let policies = TestMesh::http()
        .authorize("prod/trial", policy("DENY", "/a"))
        .as_dry_run()
        .policies();
    assert_eq!(
        notes(&policies, "/a"),
        ["dry-run-denied by AuthorizationPolicy prod/trial rule 0"]
    );
    assert_eq!(notes(&policies, "/b"), [""; 0]);
    assert!(policies.admits_request(Plaintext, &request("GET", "/a")));
}

#[test]
fn what_a_dry_run_would_have_allowed_or_not_is_noted() {
    let policies = TestMesh::http()
        .authorize("prod/trial", policy("ALLOW", "/a"))
        .as_dry_run()
        .policies();
    assert_eq!(
        notes(&policies, "/a"),
        ["dry-run-allowed by AuthorizationPolicy prod/trial rule 0"]
    );
    assert_eq!(
        notes(&policies, "/b"),
        ["dry-run-not-allowed by AuthorizationPolicy prod/trial"]
    );
    assert!(policies.admits_request(Plaintext, &request("GET", "/b")));
}

#[test]
fn enforced_policies_note_nothing() {
    let policies = TestMesh::http()
        .authorize("prod/deny", policy("DENY", "/a"))
        .authorize("prod/allow", policy("ALLOW", "/b"))
        .policies();
    for path in ["/a", "/b", "/c"] {
        assert_eq!(notes(&policies, path), [""; 0], "{path}");
    }
}

#[test]
fn a_connection_with_something_to_note_is_decided_by_the_proxy() {
    for (action, is_as_dry_run) in [("AUDIT", false), ("DENY", true), ("ALLOW", true)] {
        let spec =
            json!({"action": action, "rules": [{"from": [{"source": {"namespaces": ["a"]}}]}]});
        let mesh = TestMesh::new().authorize("prod/policy", spec);
        let policies = if is_as_dry_run {
            mesh.as_dry_run()
        } else {
            mesh
        }
        .policies();
        let noted = Peer("a/b").calls(8080);
        assert_eq!(
            policies.judge_connection(&noted),
            ConnectionVerdict::Ask,
            "{action}"
        );
        assert_eq!(policies.notes_on_opaque(&noted).len(), 1, "{action}");
        assert!(policies.admits(Peer("a/b"), 8080), "{action}");
    }
}

#[test]
fn an_audit_policy_about_http_notes_bytes_that_are_not_http() {
    let policies = TestMesh::new()
        .authorize("prod/audit", policy("AUDIT", "/a"))
        .policies();
    let notes = policies.notes_on_opaque(&Plaintext.calls(8080));
    assert_eq!(notes.len(), 1);
    assert!(policies.admits(Plaintext, 8080));
}
