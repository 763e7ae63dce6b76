//! Verified tokens: cases J-2 to J-8 of the manual that the evaluator decides.

use std::sync::Arc;

use serde_json::{Value, json};

use super::TestCaller::Peer;
use super::{TestMesh, condition, request};
use crate::{RequestAttributes, VerifiedToken, WorkloadPolicies};

/// A policy about `requestPrincipals` or its twin.
fn principals(action: &str, field: &str, value: &str) -> Arc<WorkloadPolicies> {
    let rules = json!([{"from": [{"source": {field: [value]}}]}]);
    let spec = json!({"action": action, "rules": rules});
    TestMesh::http().authorize("prod/policy", spec).policies()
}

/// A request with a token of these claims.
fn with(claims: &Value) -> RequestAttributes {
    let text = |name: &str| claims[name].as_str().unwrap_or_default().to_owned();
    let token = VerifiedToken {
        issuer: text("iss"),
        subject: text("sub"),
        claims: claims.as_object().expect("an object").clone(),
    };
    RequestAttributes {
        token: Some(Arc::new(token)),
        ..request("GET", "/")
    }
}

fn admits(policies: &WorkloadPolicies, request: &RequestAttributes) -> bool {
    policies.admits_request(Peer("a/b"), request)
}

/// Claims, and whether an ALLOW policy with a condition allows them.
fn check(key: &str, value: &str, cases: &[(Value, bool)]) {
    let allowing = condition("ALLOW", json!({"key": key, "values": [value]}));
    let except = condition("ALLOW", json!({"key": key, "notValues": [value]}));
    let denying = condition("DENY", json!({"key": key, "values": [value]}));
    for (claims, matches) in cases {
        let request = with(claims);
        assert_eq!(admits(&allowing, &request), *matches, "{key} {claims}");
        assert_eq!(admits(&except, &request), !*matches, "{key} {claims}");
        assert_eq!(admits(&denying, &request), !*matches, "{key} {claims}");
    }
    assert!(!admits(&allowing, &request("GET", "/")), "{key}: no token");
    assert!(admits(&except, &request("GET", "/")), "{key}: no token");
    assert!(admits(&denying, &request("GET", "/")), "{key}: no token");
}

#[test]
fn j2_a_permission_needs_a_token() {
    let policies = principals("ALLOW", "requestPrincipals", "*");
    assert!(!admits(&policies, &request("GET", "/")));
    assert!(admits(&policies, &with(&json!({"iss": "iss", "sub": "s"}))));
    assert!(!admits(&policies, &with(&json!({"iss": "iss"}))));
}

#[test]
fn j3_a_request_without_a_token_has_no_principal_that_a_negative_could_name() {
    let policies = principals("ALLOW", "notRequestPrincipals", "iss/sub-1");
    assert!(admits(&policies, &request("GET", "/")));
    assert!(admits(
        &policies,
        &with(&json!({"iss": "iss", "sub": "sub-2"}))
    ));
    assert!(!admits(
        &policies,
        &with(&json!({"iss": "iss", "sub": "sub-1"}))
    ));
}

#[test]
fn j4_requests_without_a_token_can_be_denied() {
    let policies = principals("DENY", "notRequestPrincipals", "*");
    assert!(!admits(&policies, &request("GET", "/")));
    assert!(admits(&policies, &with(&json!({"iss": "iss", "sub": "s"}))));
    assert!(!admits(&policies, &with(&json!({"iss": "iss"}))));
}

#[test]
fn j6_audiences_are_a_string_or_a_list() {
    check(
        "request.auth.audiences",
        "foo",
        &[
            (json!({"aud": "foo"}), true),
            (json!({"aud": ["foo", "buzz"]}), true),
            (json!({"aud": ["bar", "buzz"]}), false),
            (json!({"aud": "foo buzz"}), false),
            (json!({"aud": {"foo": "foo"}}), false),
            (json!({"aud": []}), false),
            (json!({}), false),
        ],
    );
}

#[test]
fn j7_scopes_are_split_at_spaces() {
    for (name, text) in [("scope", "write read"), ("permission", "read write")] {
        let key = format!("request.auth.claims[{name}]");
        let claims = |text: Value| json!({"iss": "i", "sub": "s", name: text});
        check(
            &key,
            "write",
            &[
                (claims(json!(text)), true),
                (claims(json!(["write"])), true),
                (claims(json!("writes read")), false),
            ],
        );
        check(&key, "admin", &[(claims(json!(text)), false)]);
        check(&key, text, &[(claims(json!(text)), false)]);
    }
    let other = json!({"roles": "write read"});
    check("request.auth.claims[roles]", "write", &[(other, false)]);
}

#[test]
fn j8_claims_within_claims() {
    let claims =
        json!({"nested": {"nested-2": {"key1": "valueA", "list": ["x", "valueA"], "n": 1}}});
    for (key, matches) in [
        ("[nested][nested-2][key1]", true),
        ("[nested][nested-2][list]", true),
        ("[nested][nested-2][key2]", false),
        ("[nested][nested-2][n]", false),
        ("[nested][nested-2]", false),
        ("[nested][key1]", false),
        ("[nested][nested-2][key1][x]", false),
        ("[key1]", false),
    ] {
        let key = format!("request.auth.claims{key}");
        check(&key, "valueA", &[(claims.clone(), matches)]);
        check(&key, "*", &[(claims.clone(), matches)]);
    }
}

#[test]
fn j8_text_that_is_not_a_sequence_of_names_is_one_name() {
    let claims = json!({"[good]": "a", "good]": "b", "a.b": "c", "a": {"b": "d"}});
    for (key, value) in [("[[good]]", "a"), ("[good]]", "b"), ("[a.b]", "c")] {
        let key = format!("request.auth.claims{key}");
        check(&key, value, &[(claims.clone(), true)]);
    }
}

#[test]
fn presenters_and_principals_are_conditions_too() {
    check(
        "request.auth.presenter",
        "me*",
        &[
            (json!({"azp": "me-too"}), true),
            (json!({"azp": "you"}), false),
        ],
    );
    check(
        "request.auth.principal",
        "https://issuer.example/a/*",
        &[
            (json!({"iss": "https://issuer.example/a", "sub": "x"}), true),
            (
                json!({"iss": "https://issuer.example", "sub": "a/x"}),
                false,
            ),
            (json!({"iss": "https://issuer.example/a"}), false),
        ],
    );
}

#[test]
fn numbers_and_booleans_match_no_text() {
    let claims = json!({"iss": "i", "sub": "s", "level": 5, "admin": true, "list": [1, true]});
    for (name, value) in [
        ("level", "5"),
        ("admin", "true"),
        ("list", "1"),
        ("level", "*"),
    ] {
        check(
            &format!("request.auth.claims[{name}]"),
            value,
            &[(claims.clone(), false)],
        );
    }
}
