//! The findings about objects.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::{ROOT, TestMesh};
use crate::{Finding, Severity};

fn cross(mesh: TestMesh, providers: Option<&[&str]>) -> Vec<(String, String)> {
    let providers: Option<BTreeSet<_>> =
        providers.map(|names| names.iter().map(|&name| name.into()).collect());
    let findings = mesh.index().cross_check(providers.as_ref());
    let told = findings.into_iter();
    told.map(|finding| (finding.field, finding.problem))
        .collect()
}

fn only(mesh: TestMesh) -> Finding {
    let mut findings = mesh.index().findings();
    assert_eq!(findings.len(), 1, "{findings:?}");
    findings.remove(0)
}

#[test]
fn each_broken_rule_is_an_error_with_its_field_value_and_consequence() {
    let rule = |port: &str| json!({"to": [{"operation": {"ports": [port]}}]});
    let spec = json!({"rules": [rule("http"), rule("80"), rule("65536")]});
    let findings = TestMesh::new().authorize("prod/a", spec).index().findings();
    let shown: Vec<_> = findings
        .iter()
        .map(|one| (one.field.as_str(), one.value.as_deref()))
        .collect();
    assert_eq!(
        shown,
        [
            ("spec.rules[0].to[0].operation.ports[0]", Some("\"http\"")),
            ("spec.rules[2].to[0].operation.ports[0]", Some("\"65536\"")),
        ]
    );
    assert!(findings.iter().all(|one| one.severity == Severity::Error));
    assert!(
        findings[0].problem.contains("allows nothing"),
        "{findings:?}"
    );
    let right = json!({"rules": [rule("80")]});
    assert_eq!(
        TestMesh::new()
            .authorize("prod/a", right)
            .index()
            .findings(),
        []
    );
}

#[test]
fn doubtful_objects_are_enforced_with_a_warning() {
    let deny = |to: Value| json!({"action": "DENY", "rules": [{"to": [{"operation": to}]}]});
    let http = deny(json!({"methods": ["GET"]}));
    let warned = only(TestMesh::new().authorize("prod/a", http));
    assert_eq!(
        (warned.severity, warned.field.as_str()),
        (Severity::Warning, "spec.rules[0]")
    );
    let with_port = deny(json!({"methods": ["GET"], "ports": ["80"]}));
    assert_eq!(
        TestMesh::new()
            .authorize("prod/a", with_port)
            .index()
            .findings(),
        []
    );
    let selecting = json!({"selector": {}, "rules": [{}]});
    assert_eq!(
        only(TestMesh::new().authorize("prod/a", selecting)).field,
        "spec.selector"
    );
    let gateway = json!({"targetRefs": [
        {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"},
    ], "rules": [{}]});
    assert_eq!(
        only(TestMesh::new().authorize("prod/a", gateway)).field,
        "spec.targetRefs[0]"
    );
    let disable = json!({"mtls": {"mode": "DISABLE"}});
    let warned = only(TestMesh::new().authenticate("prod/a", disable));
    assert_eq!(warned.field, "spec.mtls.mode");
    let root = json!({"selector": {"matchLabels": {"a": "b"}}});
    let warned = only(TestMesh::new().authenticate(&format!("{ROOT}/a"), root));
    assert!(warned.problem.contains("root namespace"), "{warned:?}");
}

#[test]
fn a_missing_service_is_reported_if_others_are_known() {
    let referring =
        |name: &str| json!({"targetRefs": [{"kind": "Service", "name": name}], "rules": [{}]});
    let told = cross(TestMesh::new().authorize("prod/a", referring("wbe")), None);
    assert_eq!(told.len(), 1);
    assert!(told[0].1.contains("no Service wbe"), "{told:?}");
    assert_eq!(
        cross(TestMesh::new().authorize("prod/a", referring("web")), None),
        []
    );
    // No Service of this namespace is known.
    assert_eq!(
        cross(TestMesh::new().authorize("test/a", referring("wbe")), None),
        []
    );
}

#[test]
fn rules_about_requests_need_an_http_port() {
    let get = json!({"rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]});
    let told = cross(TestMesh::new().authorize("prod/a", get.clone()), None);
    assert!(told[0].1.contains("a port of the pod prod/web"), "{told:?}");
    assert_eq!(cross(TestMesh::http().authorize("prod/a", get), None), []);
    let on = |port: &str| json!({"rules": [{"to": [{"operation": {"methods": ["GET"], "ports": [port]}}]}]});
    assert_eq!(
        cross(TestMesh::http().authorize("prod/a", on("8080")), None),
        []
    );
    let told = cross(TestMesh::http().authorize("prod/a", on("9090")), None);
    assert!(told[0].1.contains("port 9090"), "{told:?}");
}

#[test]
fn a_missing_provider_is_reported_if_the_mesh_configuration_is_known() {
    let custom = json!({"action": "CUSTOM", "provider": {"name": "opa"}, "rules": [{}]});
    let mesh = || TestMesh::new().authorize("prod/a", custom.clone());
    assert_eq!(cross(mesh(), None), []);
    assert_eq!(cross(mesh(), Some(&["opa"])), []);
    let told = cross(mesh(), Some(&["other"]));
    assert_eq!(told[0].0, "spec.provider.name");
}
