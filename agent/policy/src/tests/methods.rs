//! Methods: cases M-2 and M-3 of the manual. The parser ensures that a method is in upper case (M-1).

use http::HeaderValue;
use serde_json::json;

use super::TestCaller::Peer;
use super::{operation, request};

#[test]
fn m2_another_method_is_another_method() {
    let policies = operation("DENY", json!({"methods": ["GET"]}));
    let admits = |request| policies.admits_request(Peer("a/b"), &request);
    assert!(!admits(request("GET", "/")));
    assert!(admits(request("HEAD", "/")));
    assert!(admits(request("get", "/")));
    let mut overriding = request("POST", "/");
    let value = HeaderValue::from_static("GET");
    overriding.headers.append("x-http-method-override", value);
    assert!(admits(overriding));
}

#[test]
fn m3_not_methods() {
    let policies = operation("ALLOW", json!({"notMethods": ["PUT"]}));
    assert!(!policies.admits_request(Peer("a/b"), &request("PUT", "/")));
    assert!(policies.admits_request(Peer("a/b"), &request("GET", "/")));
}

#[test]
fn methods_are_matched_as_strings() {
    let policies = operation(
        "ALLOW",
        json!({"methods": ["P*", "*D"], "notMethods": ["PUT"]}),
    );
    for (method, admitted) in [
        ("POST", true),
        ("PATCH", true),
        ("HEAD", true),
        ("PUT", false),
        ("GET", false),
    ] {
        let is_admitted = policies.admits_request(Peer("a/b"), &request(method, "/"));
        assert_eq!(is_admitted, admitted, "{method}");
    }
    let any = operation("DENY", json!({"methods": ["*"]}));
    assert!(!any.admits_request(Peer("a/b"), &request("GET", "/")));
}
