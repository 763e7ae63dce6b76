//! Which AuthorizationPolicy applies to which workload.

use serde_json::{Value, json};

use super::TestCaller::{Peer, Plaintext};
use super::{ROOT, TestMesh};

fn nobody(selector: Value) -> Value {
    json!({"selector": selector, "action": "DENY", "rules": [{}]})
}

#[test]
fn a_policy_of_the_root_namespace_applies_everywhere() {
    assert!(
        !TestMesh::new()
            .authorize(&format!("{ROOT}/all"), nobody(Value::Null))
            .admits(Plaintext)
    );
    let selecting = json!({"matchLabels": {"app": "web"}});
    assert!(
        !TestMesh::new()
            .authorize(&format!("{ROOT}/web"), nobody(selecting))
            .admits(Plaintext)
    );
    let other = json!({"matchLabels": {"app": "db"}});
    assert!(
        TestMesh::new()
            .authorize(&format!("{ROOT}/db"), nobody(other))
            .admits(Plaintext)
    );
}

#[test]
fn a_policy_applies_to_its_own_namespace_only() {
    assert!(
        !TestMesh::new()
            .authorize("prod/all", nobody(Value::Null))
            .admits(Plaintext)
    );
    assert!(
        TestMesh::new()
            .authorize("test/all", nobody(Value::Null))
            .admits(Plaintext)
    );
}

#[test]
fn every_label_of_a_selector_has_to_match() {
    let both = json!({"matchLabels": {"app": "web", "tier": "front"}});
    assert!(
        TestMesh::new()
            .authorize("prod/both", nobody(both))
            .admits(Plaintext)
    );
    let one = json!({"matchLabels": {"app": "web"}});
    assert!(
        !TestMesh::new()
            .authorize("prod/one", nobody(one))
            .admits(Plaintext)
    );
    let none = json!({"matchLabels": {}});
    assert!(
        !TestMesh::new()
            .authorize("prod/none", nobody(none))
            .admits(Plaintext)
    );
}

#[test]
fn t6_an_empty_policy_in_the_root_namespace_refuses_until_something_allows() {
    let closed = || TestMesh::new().authorize(&format!("{ROOT}/default-deny"), json!({}));
    assert!(!closed().admits(Peer("a/b")));
    let allow = json!({"rules": [{"from": [{"source": {"namespaces": ["a"]}}]}]});
    assert!(
        closed()
            .authorize("prod/allow", allow.clone())
            .admits(Peer("a/b"))
    );
    assert!(!closed().authorize("prod/allow", allow).admits(Peer("c/b")));
}
