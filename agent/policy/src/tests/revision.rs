//! The label `istio.io/rev`: which control plane's objects apply.

use serde_json::{Value, json};

use super::TestCaller::{Peer, Plaintext};
use super::TestMesh;
use crate::{PolicyState, Severity};
use ambit_model::PolicyKind::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use ambit_model::{PolicyKind, Revision};

fn objects() -> [(PolicyKind, Value); 3] {
    let rules = json!([{"issuer": "a", "jwksUri": "https://a.example/keys"}]);
    [
        (
            AuthorizationPolicy,
            json!({"action": "DENY", "rules": [{}]}),
        ),
        (PeerAuthentication, json!({"mtls": {"mode": "STRICT"}})),
        (RequestAuthentication, json!({"jwtRules": rules})),
    ]
}

/// Whether an object applies in a mesh of a revision.
fn decides(kind: PolicyKind, spec: &Value, label: Option<&str>, own: &str) -> bool {
    let mesh = TestMesh::new().with(kind, "prod/policy", spec.clone());
    let mesh = mesh.for_revision(label).of_revision(own);
    let index = mesh.index();
    match kind {
        RequestAuthentication => index.jwt_rules().next().is_some(),
        _ => !index.for_workload(&super::web()).admits(Plaintext, 8080),
    }
}

#[test]
fn objects_of_every_kind_decide_in_their_revision() {
    for (kind, spec) in objects() {
        for (label, own, expected) in [
            (None, "default", true),
            (None, "canary", true),
            (Some("default"), "default", true),
            (Some("canary"), "canary", true),
            (Some("canary"), "", true),
            (Some("canary"), "default", false),
            (Some("default"), "canary", false),
            (Some(""), "default", false),
        ] {
            let found = decides(kind, &spec, label, own);
            assert_eq!(found, expected, "{kind} {label:?} {own:?}");
        }
    }
}

#[test]
fn ignored_objects_are_reported() {
    for (kind, spec) in objects() {
        let mesh = || {
            let mesh = TestMesh::new().with(kind, "prod/policy", spec.clone());
            mesh.for_revision(Some("canary"))
        };
        let condition = mesh().condition();
        assert_eq!(condition.state, PolicyState::NotEnforced, "{kind}");
        assert_eq!(condition.workloads, 0, "{kind}");
        let denies = (kind == AuthorizationPolicy).then_some("DENY");
        assert_eq!(condition.action, denies, "{kind}");
        let message = condition.message.expect("a reason");
        assert!(message.contains("\"canary\""), "{message}");
        let findings = mesh().index().findings();
        let [finding] = findings.as_slice() else {
            panic!("{findings:?}");
        };
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(finding.field, "metadata.labels[istio.io/rev]");
        assert!(mesh().of_revision("canary").index().findings().is_empty());
    }
}

/// Broken or not, it does not apply here.
#[test]
fn a_broken_object_of_another_revision_refuses_nothing() {
    let broken = || TestMesh::new().authorize("prod/policy", json!({"rules": [{"upon": []}]}));
    assert!(!broken().admits(Plaintext));
    assert!(broken().for_revision(Some("canary")).admits(Plaintext));
}

/// An ALLOW policy closes what it does not allow, unless it does not apply.
#[test]
fn a_policy_of_another_revision_does_not_count() {
    let allow = |label| {
        let spec = json!({"rules": [{"from": [{"source": {"namespaces": ["a"]}}]}]});
        let mesh = TestMesh::new().authorize("prod/allow", spec);
        mesh.for_revision(label).authorize("prod/nobody", json!({}))
    };
    assert!(allow(None).admits(Peer("a/b")));
    assert!(!allow(Some("canary")).admits(Peer("a/b")));
    let strict = |label| {
        let mesh = TestMesh::new().authenticate("prod/a", json!({"mtls": {"mode": "PERMISSIVE"}}));
        let mesh = mesh.for_revision(label);
        mesh.authenticate("prod/b", json!({"mtls": {"mode": "STRICT"}}))
    };
    assert!(strict(None).admits(Plaintext), "the older one decides");
    assert!(!strict(Some("canary")).admits(Plaintext));
}

impl TestMesh {
    /// Sets the revision of the last policy.
    fn for_revision(mut self, label: Option<&str>) -> Self {
        let policy = self.policies.last_mut().expect("a policy");
        policy.revision = label.map(str::to_owned);
        self
    }

    /// Sets the revision of the mesh.
    fn of_revision(self, text: &str) -> Self {
        let revision = Revision::new(text).expect("valid");
        Self { revision, ..self }
    }
}
