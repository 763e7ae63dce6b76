//! Which PeerAuthentication decides whether a port accepts plaintext.

use ambit_common::Reason;
use serde_json::{Value, json};

use super::TestCaller::{Peer, Plaintext};
use super::{ROOT, TestMesh};

fn mode(mode: &str) -> Value {
    json!({"mtls": {"mode": mode}})
}

fn for_web(mode: &str, ports: Value) -> Value {
    json!({
        "selector": {"matchLabels": {"app": "web"}},
        "mtls": {"mode": mode},
        "portLevelMtls": ports,
    })
}

fn mesh_wide(spec: Value) -> TestMesh {
    TestMesh::new().authenticate(&format!("{ROOT}/default"), spec)
}

#[test]
fn without_an_object_plaintext_is_taken() {
    assert!(TestMesh::new().admits(Plaintext));
}

#[test]
fn strict_refuses_plaintext_and_names_itself() {
    let policies = mesh_wide(mode("STRICT")).policies();
    assert!(!policies.admits(Plaintext, 8080));
    assert!(policies.admits(Peer("a/b"), 8080));
    assert_eq!(policies.reason(Plaintext), Some(Reason::DeniedByPolicy));
}

#[test]
fn the_narrower_level_wins() {
    let namespaced =
        |upper, lower| mesh_wide(mode(upper)).authenticate("prod/default", mode(lower));
    assert!(namespaced("STRICT", "PERMISSIVE").admits(Plaintext));
    assert!(!namespaced("PERMISSIVE", "STRICT").admits(Plaintext));
    let selected = |upper, lower| {
        namespaced("UNSET", upper).authenticate("prod/web", for_web(lower, Value::Null))
    };
    assert!(selected("STRICT", "PERMISSIVE").admits(Plaintext));
    assert!(!selected("PERMISSIVE", "STRICT").admits(Plaintext));
}

#[test]
fn unset_inherits() {
    for spec in [mode("UNSET"), json!({"mtls": {}}), json!({}), Value::Null] {
        let mesh = mesh_wide(mode("STRICT")).authenticate("prod/default", spec.clone());
        assert!(!mesh.admits(Plaintext), "{spec}");
    }
}

#[test]
fn a_port_has_a_mode_of_its_own() {
    let ports = json!({"8080": {"mode": "PERMISSIVE"}, "9090": {"mode": "UNSET"}});
    let strict = TestMesh::new()
        .authenticate("prod/web", for_web("STRICT", ports))
        .policies();
    assert!(strict.admits(Plaintext, 8080));
    assert!(!strict.admits(Plaintext, 9090));
    assert!(!strict.admits(Plaintext, 80));
    let ports = json!({"8080": {"mode": "STRICT"}});
    let open = TestMesh::new()
        .authenticate("prod/web", for_web("PERMISSIVE", ports))
        .policies();
    assert!(!open.admits(Plaintext, 8080));
    assert!(open.admits(Plaintext, 80));
}

#[test]
fn another_namespace_and_another_selector_do_not_apply() {
    let other = json!({"selector": {"matchLabels": {"app": "db"}}, "mtls": {"mode": "PERMISSIVE"}});
    let mesh = mesh_wide(mode("STRICT"))
        .authenticate("test/default", mode("PERMISSIVE"))
        .authenticate("prod/db", other);
    assert!(!mesh.admits(Plaintext));
}

#[test]
fn a_selector_in_the_root_namespace_has_no_effect() {
    let index = mesh_wide(mode("STRICT"))
        .authenticate(&format!("{ROOT}/web"), for_web("PERMISSIVE", json!({})))
        .index();
    assert!(!index.for_workload(&super::web()).admits(Plaintext, 8080));
    let shown = index
        .conditions()
        .into_iter()
        .find(|shown| &*shown.name.name == "web");
    let message = shown.and_then(|shown| shown.message);
    assert!(
        message
            .as_deref()
            .is_some_and(|text| text.contains("no effect")),
        "{message:?}"
    );
}

#[test]
fn the_oldest_of_a_level_wins() {
    for (older, admitted) in [("STRICT", false), ("PERMISSIVE", true)] {
        let newer = if admitted { "STRICT" } else { "PERMISSIVE" };
        let mut mesh = TestMesh::new()
            .authenticate("prod/a", mode(newer))
            .authenticate("prod/b", mode(older));
        mesh.policies[0].created = Some("2026-02-01T00:00:00Z".to_owned());
        mesh.policies[1].created = Some("2026-01-01T00:00:00Z".to_owned());
        assert_eq!(mesh.admits(Plaintext), admitted, "{older} is older");
    }
}

#[test]
fn disable_is_permissive_with_a_warning() {
    let index = mesh_wide(mode("DISABLE")).index();
    assert!(index.for_workload(&super::web()).admits(Plaintext, 8080));
    let conditions = index.conditions();
    let message = conditions[0].message.as_deref();
    assert!(
        message.is_some_and(|text| text.contains("DISABLE")),
        "{message:?}"
    );
}
