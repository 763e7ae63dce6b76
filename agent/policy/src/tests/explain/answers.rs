//! Each kind of answer, and its words.

use serde_json::{Value, json};

use super::super::{ROOT, TestMesh};
use crate::explain::{
    AccessExplanation, AccessQuestion, AccessVerdict, AuthenticationMode, CallerTransport, Cause,
    DecidedBy, Explanation, HypotheticalRequest,
};

/// A question about port 8080 of the pod `prod/web`, from `namespace/account` of the mesh or an
/// address.
pub(super) fn from(caller: &str) -> AccessQuestion {
    AccessQuestion {
        from: caller.parse().expect(caller),
        from_address: Some("10.9.0.1".parse().expect("valid")),
        transport: CallerTransport::Tunnel,
        to: "pod:prod/web".parse().expect("valid"),
        port: 8080,
        request: None,
    }
}

pub(super) fn with(caller: &str, method: &str, path: &str) -> AccessQuestion {
    AccessQuestion {
        request: Some(HypotheticalRequest {
            method: Some(method.to_owned()),
            path: Some(path.to_owned()),
            ..HypotheticalRequest::default()
        }),
        ..from(caller)
    }
}

pub(super) fn answer(mesh: TestMesh, question: &AccessQuestion) -> AccessExplanation {
    mesh.view().explain(question).expect("an answer")
}

pub(super) fn explain(mesh: TestMesh, question: &AccessQuestion) -> Explanation {
    let mut answer = answer(mesh, question);
    assert_eq!(answer.results.len(), 1);
    answer.results.remove(0).explanation
}

pub(super) fn charge() -> Value {
    json!({"rules": [{
        "from": [{"source": {"namespaces": ["orders"]}}, {"source": {"namespaces": ["web"]}}],
        "to": [{"operation": {"methods": ["GET"], "paths": ["/charge", "/refund/{*}"]}}],
    }]})
}

fn texts(explanation: &Explanation) -> Vec<String> {
    let criteria = explanation.matched.iter();
    criteria.map(ToString::to_string).collect()
}

#[test]
fn a_denied_request_names_the_nearest_rule_and_what_it_lacks() {
    let mesh = || TestMesh::http().authorize("prod/charge", charge());
    let denied = explain(mesh(), &with("web/frontend", "GET", "/order/../admin?x=1"));
    assert_eq!(denied.verdict, AccessVerdict::Deny);
    assert_eq!(denied.decided, DecidedBy::ProxyPerRequest);
    let Cause::NoAllowMatched { policies } = &denied.cause else {
        panic!("{:?}", denied.cause)
    };
    let shown = policies[0].to_string();
    assert_eq!(
        shown,
        "AuthorizationPolicy prod/charge (the Kubernetes API)"
    );
    let nearest = denied.nearest.expect("a rule");
    assert_eq!(nearest.rule.rule, Some(0));
    let criteria: Vec<_> = nearest.criteria.iter().map(ToString::to_string).collect();
    assert_eq!(
        criteria,
        [
            "paths wants one of \"/charge\", \"/refund/{*}\", the path is \"/admin\" (from \
             \"/order/../admin?x=1\", normalised)"
        ]
    );
    assert!(
        denied.notes[0].contains("normalised to \"/admin\""),
        "{:?}",
        denied.notes
    );

    let stranger = explain(mesh(), &with("test/a", "PUT", "/charge"));
    assert_eq!(stranger.decided, DecidedBy::KernelAtConnect);
    let nearest = stranger.nearest.expect("a rule");
    let fields: Vec<_> = nearest
        .criteria
        .iter()
        .map(|one| one.field.as_str())
        .collect();
    assert_eq!(fields, ["namespaces", "methods"]);
    assert!(stranger.notes.is_empty());
}

#[test]
fn an_allowed_request_names_its_rule_and_what_matched() {
    let mesh = TestMesh::http().authorize("prod/charge", charge());
    let allowed = explain(mesh, &with("web/frontend", "GET", "/refund/7"));
    assert_eq!(allowed.verdict, AccessVerdict::Allow);
    assert!(matches!(&allowed.cause, Cause::AllowRule { rule } if rule.rule == Some(0)));
    assert_eq!(
        texts(&allowed),
        [
            "namespaces wants one of \"web\", the caller's namespace is \"web\"",
            "methods wants one of \"GET\", the method is \"GET\"",
            "paths wants one of \"/charge\", \"/refund/{*}\", the path is \"/refund/7\"",
        ]
    );
    assert_eq!(allowed.nearest, None);
}

#[test]
fn a_connection_to_an_http_port_depends_on_its_requests() {
    let mesh = || TestMesh::http().authorize("prod/charge", charge());
    let open = explain(mesh(), &from("web/frontend"));
    assert_eq!(open.verdict, AccessVerdict::DependsOnRequest);
    assert_eq!(open.cause, Cause::Request);
    let rule = &open.undecided[0];
    let fields: Vec<_> = rule.criteria.iter().map(|one| one.field.as_str()).collect();
    assert_eq!(
        (rule.action.as_str(), fields),
        ("ALLOW", vec!["methods", "paths"])
    );
    let closed = explain(mesh(), &from("test/a"));
    assert_eq!(
        (closed.verdict, closed.decided),
        (AccessVerdict::Deny, DecidedBy::KernelAtConnect)
    );
}

#[test]
fn a_rule_about_requests_does_not_allow_other_bytes_and_the_answer_says_why() {
    let mesh = TestMesh::new().authorize("prod/charge", charge());
    let denied = explain(mesh, &with("web/frontend", "GET", "/charge"));
    assert_eq!(denied.verdict, AccessVerdict::Deny);
    assert!(denied.notes[0].contains("no Service declares port 8080 as HTTP"));
    let nearest = denied.nearest.expect("a rule");
    assert!(
        nearest.criteria[0]
            .to_string()
            .ends_with("port 8080 does not carry HTTP")
    );

    let elsewhere = json!({"rules": [{"to": [
        {"operation": {"ports": ["8080"]}}, {"operation": {"methods": ["GET"]}},
    ]}]});
    let void = explain(
        TestMesh::new().authorize("prod/a", elsewhere),
        &from("web/a"),
    );
    let nearest = void.nearest.expect("a rule");
    assert_eq!(nearest.criteria[0].field, "methods");
}

#[test]
fn a_deny_rule_is_named_with_what_matched() {
    let spec = json!({"action": "DENY", "rules": [
        {"from": [{"source": {"principals": ["*/sa/other"]}}]},
        {"from": [{"source": {"notNamespaces": ["prod"]}}], "when": [
            {"key": "destination.port", "values": ["8080"]},
        ]},
    ]});
    let mesh = || TestMesh::new().authorize("prod/deny", spec.clone());
    let denied = explain(mesh(), &from("web/a"));
    assert!(matches!(&denied.cause, Cause::DenyRule { rule } if rule.rule == Some(1)));
    assert_eq!(
        texts(&denied),
        [
            "notNamespaces wants none of \"prod\", the caller's namespace is \"web\"",
            "destination.port wants one of \"8080\", the port is 8080",
        ]
    );
    let allowed = explain(mesh(), &from("prod/a"));
    assert_eq!(
        (allowed.verdict, allowed.cause),
        (AccessVerdict::Allow, Cause::NoAllowPolicy)
    );
}

#[test]
fn strict_refuses_plaintext_and_says_who_makes_it_so() {
    let mesh = || {
        let strict = json!({"mtls": {"mode": "STRICT"}});
        TestMesh::new().authenticate(&format!("{ROOT}/default"), strict)
    };
    let denied = explain(mesh(), &from("10.9.0.1"));
    assert_eq!(
        (denied.verdict, denied.decided),
        (AccessVerdict::Deny, DecidedBy::KernelAtSyn)
    );
    assert!(matches!(denied.cause, Cause::Strict { .. }));
    let allowed = explain(mesh(), &from("web/a"));
    assert_eq!(allowed.verdict, AccessVerdict::Allow);
    let authentication = allowed.authentication.expect("known");
    assert_eq!(authentication.mode, AuthenticationMode::Strict);
    assert_eq!(authentication.plaintext, AccessVerdict::Deny);
    assert!(authentication.object.is_some());
    let plaintext = AccessQuestion {
        transport: CallerTransport::Plaintext,
        ..from("web/a")
    };
    assert_eq!(explain(mesh(), &plaintext).verdict, AccessVerdict::Deny);
}

#[test]
fn a_permissive_object_is_named_too() {
    let mesh = TestMesh::new()
        .authenticate(
            &format!("{ROOT}/default"),
            json!({"mtls": {"mode": "STRICT"}}),
        )
        .authenticate("prod/default", json!({"mtls": {"mode": "PERMISSIVE"}}));
    let allowed = explain(mesh, &from("10.9.0.1"));
    let authentication = allowed.authentication.expect("known");
    assert_eq!(authentication.mode, AuthenticationMode::Permissive);
    assert_eq!(
        &*authentication.object.expect("named").name.namespace,
        "prod"
    );
    assert_eq!(authentication.plaintext, AccessVerdict::Allow);
}

#[test]
fn what_cannot_be_enforced_is_named_with_its_field() {
    let broken = json!({"action": "DENY", "rules": [{"upon": []}]});
    let denied = explain(TestMesh::new().authorize("prod/a", broken), &from("web/a"));
    let Cause::NotEnforceable { message, .. } = denied.cause else {
        panic!("{:?}", denied.cause)
    };
    assert!(message.is_some_and(|text| text.contains("spec.rules[0].upon")));
}

#[test]
fn an_authorizer_that_is_not_configured_refuses() {
    let custom = json!({"action": "CUSTOM", "provider": {"name": "opa"}, "rules": [{}]});
    let denied = explain(TestMesh::new().authorize("prod/a", custom), &from("web/a"));
    assert_eq!(denied.verdict, AccessVerdict::Deny);
    assert!(
        matches!(denied.cause, Cause::NoSuchAuthorizer { .. }),
        "{:?}",
        denied.cause
    );
}

#[test]
fn several_authorizers_refuse_and_the_answer_says_so() {
    let custom = |provider: &str, path: Option<&str>| {
        let rule = path.map_or(
            json!({}),
            |path| json!({"to": [{"operation": {"paths": [path]}}]}),
        );
        json!({"action": "CUSTOM", "provider": {"name": provider}, "rules": [rule]})
    };
    for mesh in [TestMesh::new(), TestMesh::http()] {
        let mesh = mesh
            .authorize("prod/a", custom("opa", None))
            .authorize("prod/b", custom("other", Some("/x")));
        let denied = explain(mesh, &from("web/a"));
        assert_eq!(denied.verdict, AccessVerdict::Deny);
        let cause = denied.cause;
        assert!(
            matches!(cause, Cause::SeveralAuthorizers { .. }),
            "{cause:?}"
        );
    }
}

#[test]
fn audits_and_dry_runs_are_noted_and_decide_nothing() {
    let mesh = TestMesh::new()
        .authorize("prod/audit", json!({"action": "AUDIT", "rules": [{}]}))
        .authorize("prod/trial", json!({"action": "DENY", "rules": [{}]}))
        .as_dry_run();
    let allowed = explain(mesh, &from("web/a"));
    assert_eq!(
        (allowed.verdict, allowed.decided),
        (AccessVerdict::Allow, DecidedBy::ProxyPerConnection)
    );
    assert_eq!(allowed.notes.len(), 2);
    assert!(allowed.notes[0].contains("prod/audit") && allowed.notes[1].contains("dry run"));
}

#[test]
fn a_token_is_not_verified_and_the_answer_says_so() {
    let spec = json!({"rules": [{
        "from": [{"source": {"requestPrincipals": ["issuer/subject"]}}],
        "when": [{"key": "request.auth.claims[groups]", "values": ["staff"]}],
    }]});
    let mesh = || TestMesh::http().authorize("prod/a", spec.clone());
    let ask = |claims: Option<Value>| AccessQuestion {
        request: Some(HypotheticalRequest {
            claims: claims.and_then(|claims| claims.as_object().cloned()),
            path: Some("/".to_owned()),
            ..HypotheticalRequest::default()
        }),
        ..from("web/a")
    };
    let token = json!({"iss": "issuer", "sub": "subject", "groups": ["staff"]});
    let allowed = answer(mesh(), &ask(Some(token)));
    assert_eq!(allowed.results[0].explanation.verdict, AccessVerdict::Allow);
    assert!(
        allowed.assumptions[0].contains("was not verified"),
        "{:?}",
        allowed.assumptions
    );
    let other = explain(mesh(), &ask(Some(json!({"iss": "issuer", "sub": "x"}))));
    let nearest: Vec<_> = other.nearest.expect("a rule").criteria;
    assert_eq!(nearest[0].found, "the token's principal is \"issuer/x\"");
    assert_eq!(nearest[1].field, "request.auth.claims[groups]");
    let without = explain(mesh(), &ask(None));
    assert_eq!(
        without.nearest.expect("a rule").criteria[0].found,
        "the request has no token"
    );
}

#[test]
fn an_answer_survives_the_socket() {
    let mesh = TestMesh::http().authorize("prod/charge", charge());
    let question = with("web/frontend", "GET", "/admin");
    let read: AccessQuestion =
        serde_json::from_value(json!(question)).expect("a question reads back");
    assert_eq!(read, question);
    let answer = answer(mesh, &question);
    let read: AccessExplanation =
        serde_json::from_value(json!(answer)).expect("an answer reads back");
    assert_eq!(read, answer);
}
