use super::*;
use ambit_model::{Revision, TrustBundle, TrustDomain};
use ambit_source::files::offline::{Input, OfflineConfig, read_once};

fn input(name: &str, text: &str) -> Input {
    Input::Text {
        name: name.to_owned(),
        text: text.to_owned(),
    }
}

fn report(inputs: Vec<Input>) -> Report {
    let domain = TrustDomain::new("cluster.local").expect("valid");
    let config = OfflineConfig {
        trust_bundle: TrustBundle::without_aliases(domain),
        root_namespace: "istio-system".into(),
        revision: Revision::default(),
    };
    Report::of(&read_once(inputs, config))
}

fn only(text: &str) -> ReportedFinding {
    let mut report = report(vec![input("a.yaml", text)]);
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    report.findings.remove(0)
}

const POLICY: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: cart, namespace: shop}
spec:
  rules:
  - to:
    - operation:
        ports: [\"http\"]
";

#[test]
fn a_policy_for_another_revision_is_reported_with_its_label() {
    let labelled = POLICY
        .replace(
            "namespace: shop",
            "namespace: shop, labels: {istio.io/rev: canary}",
        )
        .replace("http", "80");
    let found = only(&labelled);
    assert_eq!(found.severity, Grade::Warning);
    assert_eq!(found.line, Some(3));
    assert!(found.message.contains("\"canary\""), "{}", found.message);
    let own = labelled.replace("canary", "default");
    assert_eq!(report(vec![input("a.yaml", &own)]).findings, []);
}

#[test]
fn a_policy_is_reported_with_document_line_field_and_value() {
    let two = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n---\n{POLICY}");
    let found = only(&two);
    assert_eq!((found.document, found.line), (Some(2), Some(12)));
    assert_eq!(found.severity, Grade::Error);
    assert_eq!(
        found.object.as_deref(),
        Some("AuthorizationPolicy shop/cart")
    );
    assert_eq!(
        found.field.as_deref(),
        Some("spec.rules[0].to[0].operation.ports[0]")
    );
    assert_eq!(found.value.as_deref(), Some("\"http\""));
    assert!(
        found.message.contains("not a port from 0 to 65535"),
        "{}",
        found.message
    );
}

#[test]
fn an_item_of_a_list_has_its_own_line() {
    let item = POLICY.replace('\n', "\n  ");
    let list = format!("apiVersion: v1\nkind: List\nitems:\n- {item}\n");
    assert_eq!(only(&list).line, Some(11));
}

#[test]
fn correct_objects_have_no_findings_and_other_kinds_are_skipped() {
    let right = POLICY.replace("http", "80");
    let other = "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: cart}\n";
    let report = report(vec![input("a.yaml", &format!("{right}{other}"))]);
    assert_eq!(report.findings, []);
    assert_eq!(report.objects, 1);
    assert_eq!(report.skipped, ["a.yaml: apps/v1 Deployment"]);
}

#[test]
fn a_broken_object_hides_nothing_of_the_others() {
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 0}]}\n";
    let report = report(vec![input("a.yaml", &format!("{service}---\n{POLICY}"))]);
    let objects: Vec<_> = report
        .findings
        .iter()
        .map(|found| found.object.as_deref())
        .collect();
    assert_eq!(
        objects,
        [Some("Service a"), Some("AuthorizationPolicy shop/cart")]
    );
}

#[test]
fn an_object_that_appears_twice_is_reported_once() {
    let right = POLICY.replace("http", "80");
    let report = report(vec![input("a.yaml", &right), input("b.yaml", &right)]);
    assert_eq!(report.count(Grade::Error), 1, "{:?}", report.findings);
    assert_eq!(report.findings[0].file.as_deref(), Some("b.yaml"));
    assert!(report.findings[0].message.contains("a.yaml, document 1"));
}

#[test]
fn text_that_is_not_yaml_or_empty_is_unreadable() {
    for text in ["a: [\n", ""] {
        assert_eq!(only(text).severity, Grade::Unreadable, "{text:?}");
    }
    let report = report(vec![Input::Path("/nonexistent/a.yaml".into())]);
    assert_eq!(report.count(Grade::Unreadable), 1);
}

#[test]
fn a_missing_provider_is_reported_only_with_a_mesh_configuration() {
    let custom = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: cart, namespace: shop}
spec: {action: CUSTOM, provider: {name: opa}, rules: [{}]}
";
    let mesh = "\
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: 'extensionProviders: []'}
";
    assert_eq!(report(vec![input("a.yaml", custom)]).findings, []);
    let found = only(&format!("{custom}{mesh}"));
    assert_eq!(found.severity, Grade::Warning);
    assert_eq!(found.field.as_deref(), Some("spec.provider.name"));
    assert_eq!(found.line, Some(4));
}

#[test]
fn errors_in_an_endpoint_slice_are_reported_with_their_field() {
    let slice = "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-1
  labels: {kubernetes.io/service-name: web}
addressType: IPv4
endpoints:
- addresses: [10.0.0.1]
";
    let good = report(vec![input("a.yaml", slice)]);
    assert_eq!(good.findings, []);
    for (wrong, line) in [
        (slice.replace("IPv4", "FQDN"), 6),
        (slice.replace("10.0.0.1", "web.example"), 8),
        (slice.replace("k8s.io/v1", "k8s.io/v1beta1"), 1),
    ] {
        let found = only(&wrong);
        assert_eq!(found.severity, Grade::Error, "{}", found.message);
        assert_eq!(found.line, Some(line), "{}", found.message);
    }
}

/// Unknown kinds, groups and versions that are meant to be policies, and misspelt core kinds.
#[test]
fn what_is_meant_to_be_read_is_never_skipped() {
    for (version, kind) in [
        ("security.istio.io/v1", "AuthorisationPolicy"),
        ("security.istio.io/v1", "authorizationpolicy"),
        ("security.istio.io/v1", "AuthorizationPolicies"),
        ("security.istio.io/v1", "AuthorizationPolicyList"),
        ("security.istio.io/v1alpha1", "AuthorizationPolicy"),
        ("security.istio.io/v2", "AuthorizationPolicy"),
        ("'security.istio.io /v1'", "AuthorizationPolicy"),
        ("Security.Istio.io/v1", "AuthorizationPolicy"),
        ("security.isto.io/v1", "PeerAuthentication"),
        ("v1", "RequestAuthentication"),
        ("v1", "pod"),
        ("v1beta1", "Service"),
        ("v1", "List"),
    ] {
        let text = POLICY
            .replace("security.istio.io/v1", version)
            .replace("AuthorizationPolicy", kind)
            .replace("http", "80");
        let right = POLICY.replace("http", "80").replace("cart", "right");
        let report = report(vec![input("a.yaml", &format!("{right}---\n{text}"))]);
        assert_eq!(
            report.count(Grade::Error),
            1,
            "{version} {kind}: {report:?}"
        );
        assert_eq!(report.skipped, [""; 0], "{version} {kind}");
        assert_eq!(report.objects, 1, "the other object is read");
        let found = &report.findings[0];
        assert_eq!(found.document, Some(2), "{found:?}");
        let field = found.field.as_deref();
        let expected = ["kind", "apiVersion", "items"];
        assert!(
            field.is_some_and(|field| expected.contains(&field)),
            "{found:?}"
        );
    }
}

#[test]
fn a_policy_has_no_unknown_fields_beside_its_spec() {
    for (written, field, says) in [
        (("spec:", "sepc:"), "sepc", "write spec if you mean that"),
        (("spec:", "Spec:"), "Spec", "write spec if you mean that"),
        (
            ("namespace: shop", "namespce: shop"),
            "metadata.namespce",
            "write namespace if you mean that",
        ),
        (("spec:", "rules: []\nspec:"), "rules", "remove it"),
    ] {
        let text = POLICY.replace("http", "80").replace(written.0, written.1);
        let found = only(&text);
        assert_eq!(found.severity, Grade::Error, "{found:?}");
        assert_eq!(found.field.as_deref(), Some(field));
        assert!(found.message.contains(says), "{found:?}");
    }
}
