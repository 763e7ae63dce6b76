//! The annotation `istio.io/dry-run`.

use serde_json::{Value, json};

use super::TestCaller::Plaintext;
use super::TestMesh;
use crate::{PolicyState, Severity};
use ambit_model::PolicyKind::{PeerAuthentication, RequestAuthentication};

fn deny_all() -> TestMesh {
    let spec = json!({"action": "DENY", "rules": [{}]});
    TestMesh::new().authorize("prod/policy", spec)
}

/// The spellings of Go's strconv.ParseBool.
#[test]
fn every_spelling_of_true_and_false() {
    for value in ["1", "t", "T", "true", "TRUE", "True"] {
        assert!(deny_all().dry_run(value).admits(Plaintext), "{value}");
        let state = deny_all().dry_run(value).condition().state;
        assert_eq!(state, PolicyState::DryRun, "{value}");
    }
    for value in ["0", "f", "F", "false", "FALSE", "False"] {
        assert!(!deny_all().dry_run(value).admits(Plaintext), "{value}");
        let state = deny_all().dry_run(value).condition().state;
        assert_eq!(state, PolicyState::Enforced, "{value}");
    }
}

#[test]
fn no_other_spelling_turns_a_policy_off() {
    for value in [
        "", "yes", "on", "y", "tRUE", "2", " true", "true ", "enabled", "01", "-1",
    ] {
        assert!(!deny_all().dry_run(value).admits(Plaintext), "{value:?}");
        let condition = deny_all().dry_run(value).condition();
        assert_eq!(condition.state, PolicyState::NotEnforced, "{value:?}");
        let message = condition.message.expect("a reason");
        let named = "metadata.annotations[istio.io/dry-run] is not enforced";
        assert!(message.starts_with(named), "{message}");
        assert!(message.contains(&format!("{value:?}")), "{message}");
    }
}

#[test]
fn an_allow_policy_with_another_spelling_allows_nothing() {
    let allow_all = || TestMesh::new().authorize("prod/policy", json!({"rules": [{}]}));
    assert!(allow_all().admits(Plaintext));
    assert!(!allow_all().dry_run("yes").admits(Plaintext));
}

#[test]
fn only_allow_and_deny_have_dry_runs() {
    let custom = json!({"action": "CUSTOM", "provider": {"name": "x"}, "rules": [{}]});
    for (spec, action) in [
        (json!({"action": "AUDIT", "rules": [{}]}), "AUDIT"),
        (custom, "CUSTOM"),
    ] {
        for value in ["true", "false"] {
            let mesh = TestMesh::new().authorize("prod/policy", spec.clone());
            let condition = mesh.dry_run(value).condition();
            assert_eq!(condition.state, PolicyState::NotEnforced, "{action}");
            let message = condition.message.expect("a reason");
            assert!(message.contains(action), "{message}");
        }
        let mesh = TestMesh::new().authorize("prod/policy", spec);
        assert_eq!(mesh.condition().state, PolicyState::Enforced, "{action}");
    }
}

/// Istio's admission refuses the annotation on other kinds, whatever it says.
#[test]
fn only_authorization_policies_have_dry_runs() {
    let rules = json!([{"issuer": "a", "jwksUri": "https://a.example/keys"}]);
    for (kind, spec) in [
        (PeerAuthentication, json!({"mtls": {"mode": "PERMISSIVE"}})),
        (RequestAuthentication, json!({"jwtRules": rules})),
    ] {
        let mesh = || TestMesh::new().with(kind, "prod/policy", spec.clone());
        assert_eq!(mesh().condition().state, PolicyState::Enforced, "{kind}");
        assert!(mesh().admits(Plaintext), "{kind}");
        for value in ["true", "false", "yes"] {
            let condition = mesh().dry_run(value).condition();
            assert_eq!(condition.state, PolicyState::NotEnforced, "{kind}");
            let message = condition.message.expect("a reason");
            let named = "metadata.annotations[istio.io/dry-run] is not enforced";
            assert!(message.starts_with(named), "{message}");
            assert!(!mesh().dry_run(value).admits(Plaintext), "{kind}");
            let findings = mesh().dry_run(value).index().findings();
            assert_eq!(findings[0].severity, Severity::Error, "{kind}");
        }
    }
}

#[test]
fn t7_a_dry_run_of_allow_closes_nothing() {
    let nobody = || TestMesh::new().authorize("prod/policy", json!({}));
    assert!(!nobody().admits(Plaintext));
    assert!(nobody().as_dry_run().admits(Plaintext));
}

#[test]
fn a_dry_run_beside_an_allow_policy_opens_nothing() {
    let admits = |is_as_dry_run: bool| {
        let mesh = TestMesh::new()
            .authorize("prod/closed", json!({}))
            .authorize("prod/policy", json!({"rules": [{}]}));
        if is_as_dry_run {
            mesh.as_dry_run()
        } else {
            mesh
        }
        .admits(Plaintext)
    };
    assert!(admits(false));
    assert!(!admits(true));
}

#[test]
fn a_dry_run_that_cannot_be_read_decides_nothing_and_is_named() {
    let broken = |action: &str| -> Value { json!({"action": action, "rules": [{"upon": []}]}) };
    for action in ["ALLOW", "DENY"] {
        let mesh = || TestMesh::new().authorize("prod/policy", broken(action));
        assert!(!mesh().admits(Plaintext), "{action}");
        assert!(mesh().as_dry_run().admits(Plaintext), "{action}");
        let condition = mesh().as_dry_run().condition();
        assert_eq!(condition.state, PolicyState::NotEnforced, "{action}");
        let message = condition.message.expect("a reason");
        assert!(message.contains("spec.rules[0].upon"), "{message}");
        assert!(message.contains("dry run"), "{message}");
    }
}
