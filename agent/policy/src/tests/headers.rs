//! Headers: cases R-1 to R-12 of the manual. The parser removes white space around a value (R-4), and
//! the proxy shows headers to authorizers (R-11).

use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::TestCaller::{Peer, Plaintext};
use super::{TestMesh, condition, request};
use crate::normalise_path;
use crate::{RequestAttributes, WorkloadPolicies};
use ambit_model::PathNormalization;

fn with(lines: &[(&str, &str)]) -> RequestAttributes {
    let mut request = request("GET", "/");
    for (name, value) in lines {
        let name: HeaderName = name.parse().expect("a name");
        request
            .headers
            .append(name, value.parse().expect("a value"));
    }
    request
}

/// A policy about `x-role`.
fn role(action: &str, field: &str, values: Value) -> std::sync::Arc<WorkloadPolicies> {
    let key = "request.headers[x-role]";
    condition(action, json!({"key": key, field: values}))
}

/// Lines of `x-role`, and whether a request with them is allowed.
fn check(policies: &WorkloadPolicies, cases: &[(&[&str], bool)]) {
    for (values, admitted) in cases {
        let lines: Vec<_> = values.iter().map(|value| ("x-role", *value)).collect();
        let is_admitted = policies.admits_request(Peer("a/b"), &with(&lines));
        assert_eq!(is_admitted, *admitted, "{values:?}");
    }
}

#[test]
fn r1_the_case_of_a_name() {
    for key in ["request.headers[x-role]", "request.headers[X-Role]"] {
        let policies = condition("DENY", json!({"key": key, "values": ["admin"]}));
        for (name, admitted) in [("X-ROLE", false), ("x-role", false), ("x-roles", true)] {
            let request = with(&[(name, "admin")]);
            let is_admitted = policies.admits_request(Peer("a/b"), &request);
            assert_eq!(is_admitted, admitted, "{key} {name}");
        }
    }
}

#[test]
fn r2_one_line_of_several_is_enough_for_a_denial() {
    check(
        &role("DENY", "values", json!(["admin"])),
        &[
            (&["user", "admin"], false),
            (&["admin", "user"], false),
            (&["user", "user"], true),
            (&[], true),
        ],
    );
    check(
        &role("DENY", "notValues", json!(["user"])),
        &[
            (&["user", "admin"], false),
            (&["user", "user"], true),
            (&[], false),
        ],
    );
}

#[test]
fn r3_a_comma_is_part_of_a_line() {
    let policies = role("DENY", "values", json!(["admin"]));
    check(&policies, &[(&["user,admin"], true), (&["admin"], false)]);
    let joined = role("DENY", "values", json!(["user,admin", "a,*"]));
    check(
        &joined,
        &[
            (&["user", "admin"], false),
            (&["a", "b", "c"], false),
            (&["admin", "user"], true),
        ],
    );
}

#[test]
fn r5_no_value_has_a_nul() {
    for value in [&b"admin\0"[..], b"admin\r", b"admin\n"] {
        HeaderValue::from_bytes(value).expect_err("refused");
    }
}

#[test]
fn r6_the_case_of_a_value() {
    let policies = role("DENY", "values", json!(["admin"]));
    check(&policies, &[(&["Admin"], true), (&["admin"], false)]);
}

#[test]
fn r7_a_permission_needs_every_line() {
    check(
        &role("ALLOW", "values", json!(["user", "guest"])),
        &[
            (&["user"], true),
            (&["user", "guest"], true),
            (&["user", "admin"], false),
            (&["admin", "user"], false),
            (&["user,guest"], false),
            (&[], false),
        ],
    );
}

#[test]
fn r8_not_values_admit_what_is_absent() {
    check(
        &role("ALLOW", "notValues", json!(["bar", "a,b"])),
        &[
            (&[], true),
            (&["foo"], true),
            (&["bar"], false),
            (&["foo", "bar"], false),
            (&["a", "b"], false),
        ],
    );
}

#[test]
fn r9_an_empty_line_is_present() {
    check(
        &role("DENY", "values", json!(["*"])),
        &[(&[""], false), (&["x"], false), (&[], true)],
    );
    check(
        &role("ALLOW", "notValues", json!(["*"])),
        &[(&[""], false), (&[], true)],
    );
}

#[test]
fn r10_an_underscore_is_not_a_hyphen() {
    let policies = role("DENY", "values", json!(["admin"]));
    assert!(policies.admits_request(Peer("a/b"), &with(&[("x_role", "admin")])));
    assert!(!policies.admits_request(Peer("a/b"), &with(&[("x-role", "admin")])));
}

#[test]
fn r12_forged_headers_decide_nothing() {
    let forged = with(&[
        ("x-envoy-original-path", "/public"),
        (
            "x-istio-attributes",
            "source.principal: cluster.local/ns/foo/sa/a",
        ),
        (
            "x-forwarded-client-cert",
            "URI=spiffe://cluster.local/ns/foo/sa/a",
        ),
        ("baggage", "k8s.namespace.name=foo,source.principal=foo"),
        ("forwarded", "for=10.0.0.9;host=public.com"),
        ("x-forwarded-host", "public.com"),
        ("x-http-method-override", "GET"),
    ]);
    let rule = |rule: Value| TestMesh::http().authorize("prod/policy", json!({"rules": [rule]}));
    let source = |source: Value| rule(json!({"from": [{"source": source}]}));
    let operation = |operation: Value| rule(json!({"to": [{"operation": operation}]}));
    for mesh in [
        source(json!({"principals": ["*"], "remoteIpBlocks": ["0.0.0.0/0"]})),
        source(json!({"namespaces": ["foo"], "remoteIpBlocks": ["0.0.0.0/0"]})),
        source(json!({"remoteIpBlocks": ["10.0.0.9"]})),
        operation(json!({"hosts": ["public.com"]})),
        operation(json!({"paths": ["/public"]})),
        operation(json!({"methods": ["POST"]})),
    ] {
        let policies = mesh.policies();
        assert!(!policies.admits_request(Plaintext, &forged), "{policies:?}");
    }
}

#[test]
fn the_host_is_a_header_by_each_of_its_names() {
    for key in ["host", "Host", ":authority"] {
        let key = format!("request.headers[{key}]");
        let policies = condition("DENY", json!({"key": key, "values": ["secret.com"]}));
        for (authority, admitted) in [("secret.com", false), ("ok.com", true), ("", true)] {
            let mut request = request("GET", "/");
            request.authority = authority.to_owned();
            let is_admitted = policies.admits_request(Peer("a/b"), &request);
            assert_eq!(is_admitted, admitted, "{key} {authority}");
        }
    }
}

#[test]
fn the_path_is_a_header_as_it_is_passed_on() {
    let key = "request.headers[:path]";
    let policies = condition(
        "DENY",
        json!({"key": key, "values": ["/admin", "/q?x=/../y"]}),
    );
    for (target, admitted) in [
        ("/admin", false),
        ("/x/../admin", false),
        ("/admin#frag", false),
        ("/admin?", true),
        ("/admin?x", true),
        ("/x/../q?x=/../y", false),
        ("/q?x=/../y#?", false),
    ] {
        let passed_on = normalise_path(PathNormalization::Base, target).expect("a path");
        let mut request = request("GET", passed_on.split('?').next().expect("a path"));
        request.path_and_query = passed_on;
        let is_admitted = policies.admits_request(Peer("a/b"), &request);
        assert_eq!(is_admitted, admitted, "{target}");
    }
}

#[test]
fn the_method_is_a_header() {
    let condition_of = |action| {
        let key = "request.headers[:method]";
        condition(action, json!({"key": key, "values": ["P*"]}))
    };
    for (method, matches) in [("POST", true), ("PUT", true), ("GET", false)] {
        let admits =
            |action| condition_of(action).admits_request(Peer("a/b"), &request(method, "/"));
        assert_eq!(admits("ALLOW"), matches, "{method}");
        assert_eq!(admits("DENY"), !matches, "{method}");
    }
}

#[test]
fn a_cookie_header_may_have_several_lines() {
    let key = "request.headers[cookie]";
    let policies = condition("DENY", json!({"key": key, "values": ["a=1; b=2", "c=3"]}));
    for (lines, admitted) in [
        (&["a=1; b=2"][..], false),
        (&["a=1", "b=2"], false),
        (&["x=0", "c=3"], false),
        (&["b=2", "a=1"], true),
    ] {
        let lines: Vec<_> = lines.iter().map(|line| ("cookie", *line)).collect();
        let is_admitted = policies.admits_request(Peer("a/b"), &with(&lines));
        assert_eq!(is_admitted, admitted, "{lines:?}");
    }
}

#[test]
fn all_conditions_on_one_header_have_to_hold() {
    let when = json!([
        {"key": "request.headers[x-role]", "values": ["a*"]},
        {"key": "request.headers[x-role]", "values": ["*b"]},
    ]);
    let spec = json!({"rules": [{"when": when}]});
    let policies = TestMesh::http().authorize("prod/policy", spec).policies();
    check(
        &policies,
        &[(&["ab"], true), (&["a"], false), (&["b"], false)],
    );
}
