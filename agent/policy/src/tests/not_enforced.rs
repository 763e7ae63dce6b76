//! No policy is enforced in part: one with an unknown field refuses, and the field is named.

use ambit_common::Reason;
use serde_json::{Value, json};

use super::TestCaller::{Peer, Plaintext};
use super::TestMesh;
use crate::PolicyState;

/// A spec, and the field that its condition has to name.
fn specs() -> Vec<(Value, &'static str)> {
    let rule = |rule: Value| json!({"rules": [rule]});
    let source = |field: &str, value: Value| rule(json!({"from": [{"source": {field: value}}]}));
    let operation =
        |field: &str, value: Value| rule(json!({"to": [{"operation": {field: value}}]}));
    vec![
        (operation("ports", json!(["x"])), "ports"),
        (operation("ports", json!(["65536"])), "ports"),
        (operation("ports", json!([80])), "ports"),
        (operation("ports", json!("80")), "ports"),
        (source("ipBlocks", json!(["10.0.0.0/33"])), "ipBlocks"),
        (source("namespaces", json!(["a*b"])), "namespaces"),
        (source("namespaces", json!(["*a*"])), "namespaces"),
        (source("notNamespaces", json!(["**"])), "notNamespaces"),
        (source("namespaces", json!(["a/*"])), "namespaces"),
        (
            source("principals", json!(["*/cluster.local/ns/a/sa/b"])),
            "principals",
        ),
        (source("newField", json!(["a"])), "newField"),
        (rule(json!({"from": [{"source": {}}]})), "source"),
        (rule(json!({"from": [{}]})), "from"),
        (
            rule(json!({"from": [{"source": {"principals": []}}]})),
            "source",
        ),
        (rule(json!({"to": [{"operation": {}}]})), "operation"),
        (
            rule(json!({"to": [{"operation": {"paths": []}}]})),
            "operation",
        ),
        (rule(json!({"upon": []})), "upon"),
        (json!({"action": "deny", "rules": [{}]}), "action"),
        (json!({"action": "DENY"}), "DENY"),
        (
            json!({"selector": {"matchExpressions": []}, "rules": [{}]}),
            "selector",
        ),
        (
            json!({"selector": {"matchLabels": {"app": 1}}, "rules": [{}]}),
            "selector",
        ),
        (json!({"rules": {}}), "rules"),
        (json!({"rules": [null]}), "rules[0]"),
        (json!({"action": "DENY", "rules": [null]}), "rules[0]"),
        (json!("ALLOW"), "spec"),
    ]
}

#[test]
fn a_field_that_is_not_understood_refuses_everything_and_is_named() {
    for (spec, field) in specs() {
        let index = TestMesh::new()
            .authorize("prod/policy", spec.clone())
            .index();
        let policies = index.for_workload(&super::web());
        for caller in [Plaintext, Peer("a/b")] {
            assert!(
                !policies.admits(caller, 8080),
                "{spec}: {caller:?} is let in"
            );
        }
        let shown = index
            .conditions()
            .into_iter()
            .find(|shown| &*shown.name.name == "policy");
        let shown = shown.expect("shown");
        assert_eq!(shown.state, PolicyState::NotEnforced, "{spec}");
        let message = shown.message.as_deref().unwrap_or_default();
        assert!(message.contains(field), "{spec}: {message}");
    }
}

#[test]
fn valid_policies_of_the_same_shape_do_not_refuse() {
    let spec = json!({
        "selector": {"matchLabels": {"app": "web"}},
        "action": "ALLOW",
        "rules": [{
            "from": [{"source": {"namespaces": ["a"], "notPrincipals": ["x"]}}],
            "to": [{"operation": {"ports": ["8080"], "notPorts": ["1"]}}],
        }],
    });
    assert!(
        TestMesh::new()
            .authorize("prod/policy", spec)
            .admits(Peer("a/b"))
    );
}

#[test]
fn a_policy_that_is_not_understood_refuses_only_what_it_selects() {
    let broken = |selector: Value| json!({"selector": selector, "rules": [{"upon": []}]});
    let other = json!({"matchLabels": {"app": "db"}});
    assert!(
        TestMesh::new()
            .authorize("prod/db", broken(other))
            .admits(Plaintext)
    );
    assert!(
        TestMesh::new()
            .authorize("test/all", broken(Value::Null))
            .admits(Plaintext)
    );
    let own = json!({"matchLabels": {"app": "web"}});
    assert!(
        !TestMesh::new()
            .authorize("prod/web", broken(own))
            .admits(Plaintext)
    );
}

#[test]
fn a_peer_authentication_that_is_not_understood_refuses() {
    for spec in [
        json!({"mtls": {"mode": "MUTUAL"}}),
        json!({"mtls": {"modes": "STRICT"}}),
        json!({"mtls": "STRICT"}),
        json!({"portLevelMtls": {"80": {"mode": "STRICT"}}}),
        json!({"portLevelMtls": {}}),
        json!({"selector": {"matchLabels": {"app": "web"}}, "portLevelMtls": {}}),
        json!({"selector": {"matchLabels": {"app": "web"}}, "portLevelMtls": {"x": {"mode": "STRICT"}}}),
        json!({"unknown": 1}),
    ] {
        let mesh = TestMesh::new().authenticate("prod/default", spec.clone());
        assert!(!mesh.admits(Peer("a/b")), "{spec}");
    }
}

#[test]
fn a_broken_allow_policy_allows_nothing_and_a_broken_deny_policy_refuses_everything() {
    let allow_all = || TestMesh::new().authorize("prod/allow-all", json!({"rules": [{}]}));
    let broken = |action: &str| json!({"action": action, "rules": [{"upon": []}]});
    let with = |action| {
        allow_all()
            .authorize("prod/broken", broken(action))
            .policies()
    };
    assert!(with("ALLOW").admits(Plaintext, 8080));
    assert!(with("AUDIT").admits(Plaintext, 8080));
    for action in ["DENY", "CUSTOM", "deny"] {
        let reason = with(action).reason(Plaintext);
        assert_eq!(reason, Some(Reason::PolicyNotEnforceable), "{action}");
    }
    let alone = TestMesh::new()
        .authorize("prod/broken", broken("ALLOW"))
        .policies();
    assert_eq!(alone.reason(Plaintext), Some(Reason::NoAllowMatched));
}

#[test]
fn a_dry_run_decides_nothing() {
    let deny_all = json!({"action": "DENY", "rules": [{}]});
    let denied = TestMesh::new().authorize("prod/policy", deny_all.clone());
    assert!(!denied.admits(Plaintext));
    assert!(
        TestMesh::new()
            .authorize("prod/policy", deny_all)
            .as_dry_run()
            .admits(Plaintext)
    );
    let allow_none = TestMesh::new()
        .authorize("prod/policy", json!({}))
        .as_dry_run();
    assert!(allow_none.admits(Plaintext));
}
