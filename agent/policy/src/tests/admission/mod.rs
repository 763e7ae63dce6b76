//! What Istio's admission refuses (see the manual, "What cannot be enforced"), and the field and value that
//! the message names. A policy that is refused allows nothing.

mod values;

use serde_json::{Value, json};

use super::TestCaller::{Peer, Plaintext};
use super::TestMesh;
use crate::PolicyState;

/// Asserts that a policy is refused, as a whole and by its message.
fn refused(spec: &Value, field: &str, says: &str) {
    let mesh = || TestMesh::new().authorize("prod/policy", spec.clone());
    let condition = mesh().condition();
    assert_eq!(condition.state, PolicyState::NotEnforced, "{spec}");
    let message = condition.message.expect("a reason");
    let expected = format!("{field} is not enforced: ");
    assert!(message.starts_with(&expected), "{spec}: {message}");
    assert!(message.contains(says), "{spec}: {message}");
    for caller in [Plaintext, Peer("a/b")] {
        assert!(!mesh().admits(caller), "{spec}: {caller:?} is let in");
    }
}

/// Asserts that a policy is enforced.
fn taken(spec: &Value) {
    let condition = TestMesh::new()
        .authorize("prod/policy", spec.clone())
        .condition();
    assert_eq!(
        condition.state,
        PolicyState::Enforced,
        "{spec}: {condition:?}"
    );
}

fn rule(rule: Value) -> Value {
    json!({"rules": [rule]})
}

fn source(source: Value) -> Value {
    rule(json!({"from": [{"source": source}]}))
}

fn operation(operation: Value) -> Value {
    rule(json!({"to": [{"operation": operation}]}))
}

fn when(key: &str, field: &str, value: &str) -> Value {
    rule(json!({"when": [{"key": key, field: [value]}]}))
}

fn custom(rule: Value) -> Value {
    json!({"action": "CUSTOM", "provider": {"name": "x"}, "rules": [rule]})
}

const SOURCE: &str = "spec.rules[0].from[0].source";
const OPERATION: &str = "spec.rules[0].to[0].operation";
const WHEN: &str = "spec.rules[0].when[0]";

#[test]
fn rule_1_only_one_selector_or_reference() {
    let web = json!({"kind": "Service", "name": "web"});
    let selector = json!({"matchLabels": {"app": "web"}});
    for (spec, field, other) in [
        (
            json!({"selector": selector, "targetRef": web, "rules": [{}]}),
            "spec.targetRef",
            "selector",
        ),
        (
            json!({"selector": selector, "targetRefs": [web], "rules": [{}]}),
            "spec.targetRefs",
            "selector",
        ),
        (
            json!({"targetRefs": [web], "targetRef": web, "rules": [{}]}),
            "spec.targetRef",
            "targetRefs",
        ),
    ] {
        refused(&spec, field, other);
    }
}

#[test]
fn rule_2_labels() {
    for (labels, field) in [
        (json!({"": "web"}), "spec.selector.matchLabels."),
        (json!({"a*": "web"}), "spec.selector.matchLabels.a*"),
        (json!({"app": "*"}), "spec.selector.matchLabels.app"),
        (json!({"app": "w*b"}), "spec.selector.matchLabels.app"),
    ] {
        let spec = json!({"selector": {"matchLabels": labels}, "rules": [{}]});
        refused(&spec, field, "wildcard");
    }
    let empty = json!({"selector": {"matchLabels": {"app": ""}}, "rules": [{}]});
    taken(&empty);
    let none = json!({"selector": {}, "rules": [{}]});
    taken(&none);
    let warning = TestMesh::new()
        .authorize("prod/policy", none)
        .condition()
        .message;
    assert!(warning.is_some_and(|text| text.contains("every workload")));
}

#[test]
fn rule_3_references() {
    let target = |target: Value| json!({"targetRefs": [target], "rules": [{}]});
    let reference = "spec.targetRefs[0]";
    for (value, field, says) in [
        (json!({"kind": "Service"}), reference, "name"),
        (
            json!({"kind": "Service", "name": ""}),
            "spec.targetRefs[0].name",
            "empty",
        ),
        (
            json!({"kind": "Service", "name": "web", "namespace": "prod"}),
            "spec.targetRefs[0].namespace",
            "namespace",
        ),
        (json!({"kind": "Pod", "name": "web"}), reference, "\"Pod\""),
        (json!({"name": "web"}), reference, "\"\""),
        (
            json!({"kind": "Service", "group": "networking.istio.io", "name": "web"}),
            reference,
            "\"networking.istio.io\"",
        ),
        (
            json!({"kind": "Gateway", "group": "networking.istio.io", "name": "web"}),
            reference,
            "\"Gateway\"",
        ),
        (
            json!({"kind": "Service", "name": "web", "sectionName": "http"}),
            "spec.targetRefs[0].sectionName",
            "does not support",
        ),
    ] {
        refused(&target(value), field, says);
    }
    let web = json!({"kind": "Service", "group": "core", "name": "web", "namespace": ""});
    taken(&target(web.clone()));
    let many = vec![web; 17];
    refused(
        &json!({"targetRefs": many, "rules": [{}]}),
        "spec.targetRefs",
        "16",
    );
}

#[test]
fn rule_4_policies_that_never_match() {
    for rules in [json!([]), Value::Null] {
        refused(&json!({"action": "DENY", "rules": rules}), "spec", "DENY");
        let spec = json!({"action": "CUSTOM", "provider": {"name": "x"}, "rules": rules});
        refused(&spec, "spec", "CUSTOM");
    }
    taken(&json!({"action": "ALLOW"}));
    taken(&json!({"action": "AUDIT"}));
}

#[test]
fn rule_5_providers() {
    for action in ["ALLOW", "DENY"] {
        let spec = json!({"action": action, "provider": {"name": "x"}, "rules": [{}]});
        refused(&spec, "spec.provider", "CUSTOM");
    }
    refused(
        &json!({"action": "CUSTOM", "rules": [{}]}),
        "spec",
        "provider.name",
    );
    let unnamed = json!({"action": "CUSTOM", "provider": {}, "rules": [{}]});
    refused(&unnamed, "spec", "provider.name");
    let empty = json!({"action": "CUSTOM", "provider": {"name": ""}, "rules": [{}]});
    refused(&empty, "spec.provider.name", "empty");
    taken(&custom(json!({})));
}

#[test]
fn rule_6_custom_cannot_depend_on_identities_and_tokens() {
    for field in [
        "namespaces",
        "serviceAccounts",
        "trustDomains",
        "principals",
        "requestPrincipals",
        "notNamespaces",
        "notServiceAccounts",
        "notTrustDomains",
        "notPrincipals",
        "notRequestPrincipals",
    ] {
        let from = json!({"from": [{"source": {field: ["a"]}}]});
        refused(&custom(from.clone()), SOURCE, "CUSTOM");
        taken(&rule(from));
    }
    for key in [
        "source.namespace",
        "source.serviceAccount",
        "source.trustDomain",
        "source.principal",
        "request.auth.principal",
        "request.auth.audiences",
        "request.auth.presenter",
        "request.auth.claims[a]",
    ] {
        let when = json!({"when": [{"key": key, "values": ["a"]}]});
        refused(&custom(when.clone()), WHEN, "CUSTOM");
        taken(&rule(when));
    }
    let ip = json!({"from": [{"source": {"ipBlocks": ["10.0.0.0/8"]}}]});
    taken(&custom(ip));
    taken(&custom(
        json!({"when": [{"key": "request.headers[a]", "values": ["a"]}]}),
    ));
}

#[test]
fn rule_7_missing_values() {
    for (spec, field) in [
        (json!({"rules": [null]}), "spec.rules[0]"),
        (rule(json!({"from": null})), "spec.rules[0].from"),
        (rule(json!({"from": [null]})), "spec.rules[0].from[0]"),
        (rule(json!({"from": [{}]})), "spec.rules[0].from[0]"),
        (rule(json!({"to": [{}]})), "spec.rules[0].to[0]"),
        (source(Value::Null), SOURCE),
        (source(json!({})), SOURCE),
        (operation(Value::Null), OPERATION),
        (operation(json!({})), OPERATION),
        (source(json!({"principals": [], "notIpBlocks": []})), SOURCE),
        (operation(json!({"paths": [], "notHosts": []})), OPERATION),
        (rule(json!({"when": [null]})), WHEN),
    ] {
        refused(&spec, field, "");
    }
    taken(&rule(json!({})));
}

/// Protobuf has no empty lists: a field with an empty list is absent. The test also checks that the other
/// fields still count.
#[test]
fn rule_7_an_empty_list_is_the_same_as_no_field() {
    let from_a = json!({"namespaces": ["a"], "ipBlocks": [], "notPrincipals": [],
        "serviceAccounts": []});
    let to_8080 = json!({"ports": ["8080"], "notPorts": [], "paths": [], "notHosts": []});
    for (spec, admitted, refused) in [
        (source(from_a.clone()), Some(Peer("a/b")), Some(Peer("c/b"))),
        (
            rule(json!({"from": [{"source": from_a}], "to": [], "when": []})),
            Some(Peer("a/b")),
            Some(Plaintext),
        ),
        (
            rule(json!({"from": [], "to": [{"operation": to_8080}]})),
            Some(Plaintext),
            None,
        ),
        (
            rule(json!({"when": [{"key": "source.namespace", "values": [], "notValues": ["a"]}]})),
            Some(Peer("c/b")),
            Some(Peer("a/b")),
        ),
        (
            json!({"targetRefs": [], "rules": [{"from": [{"source": {"namespaces": ["a"]}}]}]}),
            Some(Peer("a/b")),
            Some(Peer("c/b")),
        ),
        (
            json!({"targetRefs": [], "selector": {"matchLabels": {"app": "db"}}, "rules": []}),
            Some(Plaintext),
            None,
        ),
        (rule(json!({"from": []})), Some(Plaintext), None),
        (rule(json!({"from": [], "to": []})), Some(Plaintext), None),
        (
            json!({"action": "DENY", "rules": [{"from": [], "to": []}]}),
            None,
            Some(Peer("a/b")),
        ),
        (json!({"rules": []}), None, Some(Peer("a/b"))),
    ] {
        taken(&spec);
        let mesh = || TestMesh::new().authorize("prod/policy", spec.clone());
        let is_let_in = |caller| mesh().admits(caller);
        assert!(
            admitted.is_none_or(is_let_in),
            "{spec}: {admitted:?} is refused"
        );
        assert!(
            !refused.is_some_and(is_let_in),
            "{spec}: {refused:?} is let in"
        );
    }
    let port_80 = rule(json!({"from": [], "to": [{"operation": {"ports": ["80"], "paths": []}}]}));
    assert!(
        !TestMesh::new()
            .authorize("prod/policy", port_80)
            .admits(Plaintext)
    );
}

#[test]
fn an_empty_clause_restricts_nothing_and_is_reported() {
    for (clause, other) in [("from", "to"), ("to", "from")] {
        let spec = rule(json!({clause: []}));
        let message = TestMesh::new()
            .authorize("prod/policy", spec)
            .condition()
            .message;
        let message = message.expect("a warning");
        assert!(
            message.starts_with(&format!("spec.rules[0].{clause}: ")),
            "{message}"
        );
        assert!(!message.contains(&format!("rules[0].{other}")), "{message}");
    }
}

#[test]
fn rule_8_service_accounts_cannot_be_combined() {
    for account in ["serviceAccounts", "notServiceAccounts"] {
        for other in ["principals", "notPrincipals", "namespaces", "notNamespaces"] {
            let both = source(json!({account: ["a/b"], other: ["c"]}));
            refused(&both, SOURCE, "serviceAccounts");
        }
        taken(&source(json!({account: ["a/b"], "trustDomains": ["td"]})));
    }
}

#[test]
fn rule_10_conditions() {
    refused(&rule(json!({"when": [{"values": ["a"]}]})), WHEN, "key");
    for key in [
        "",
        "source.IP",
        "source.serviceaccount",
        "request.header[x]",
        "x",
    ] {
        refused(&when(key, "values", "a"), &format!("{WHEN}.key"), "");
    }
    for key in [
        "request.headers",
        "request.headers[]",
        "request.headers[x",
        "request.headersx]",
        "request.headers[a][b]",
        "request.headers[a b]",
        "request.auth.claims",
        "request.auth.claims[]",
        "request.auth.claims[a",
        "request.auth.claimsa]",
        "connection.sni",
        "experimental.envoy.filters.x[y]",
    ] {
        refused(&when(key, "values", "a"), &format!("{WHEN}.key"), "");
    }
    for none in [
        json!({"key": "source.ip"}),
        json!({"key": "source.ip", "values": [], "notValues": []}),
    ] {
        let none = rule(json!({"when": [none]}));
        refused(&none, WHEN, "values or notValues");
    }
    taken(&when("request.headers[x-a]", "notValues", "a"));
    taken(&rule(json!({"when": []})));
}

#[test]
fn unknown_fields_are_refused_everywhere() {
    for (spec, field) in [
        (json!({"new": 1, "rules": [{}]}), "spec.new"),
        (rule(json!({"new": 1})), "spec.rules[0].new"),
        (
            rule(json!({"from": [{"new": 1}]})),
            "spec.rules[0].from[0].new",
        ),
        (
            source(json!({"new": ["a"]})),
            "spec.rules[0].from[0].source.new",
        ),
        (
            operation(json!({"new": ["a"]})),
            "spec.rules[0].to[0].operation.new",
        ),
        (
            rule(json!({"when": [{"key": "source.ip", "values": ["10.0.0.1"], "new": 1}]})),
            "spec.rules[0].when[0].new",
        ),
        (
            json!({"selector": {"new": 1}, "rules": [{}]}),
            "spec.selector.new",
        ),
    ] {
        refused(&spec, field, "does not support this field");
    }
}

#[test]
fn lists_have_limits() {
    taken(&json!({"rules": vec![json!({}); 512]}));
    refused(&json!({"rules": vec![json!({}); 513]}), "spec.rules", "512");
    let sources =
        |count| rule(json!({"from": vec![json!({"source": {"namespaces": ["a"]}}); count]}));
    taken(&sources(512));
    refused(&sources(513), "spec.rules[0].from", "512");
}

#[test]
fn a_denial_that_is_wider_than_it_looks_is_enforced_with_a_warning() {
    let warning = |spec: Value| {
        let condition = TestMesh::new().authorize("prod/policy", spec).condition();
        assert_eq!(condition.state, PolicyState::Enforced);
        condition.message
    };
    let deny =
        |operation: Value| json!({"action": "DENY", "rules": [{"to": [{"operation": operation}]}]});
    let message = warning(deny(json!({"methods": ["GET"]}))).expect("a warning");
    assert!(message.contains("rules[0]"), "{message}");
    assert_eq!(
        warning(deny(json!({"methods": ["GET"], "ports": ["80"]}))),
        None
    );
    assert_eq!(warning(deny(json!({"ports": ["80"]}))), None);
    assert_eq!(warning(operation(json!({"methods": ["GET"]}))), None);
}
