//! Hosts: cases H-1 to H-6 of the manual. The parser ensures that a request has one host (H-7).

use serde_json::{Value, json};

use super::TestCaller::Peer;
use super::operation;
use crate::{RequestAttributes, WorkloadPolicies};

fn to_host(authority: &str) -> RequestAttributes {
    RequestAttributes {
        authority: authority.to_owned(),
        ..super::request("GET", "/")
    }
}

fn check(policies: &WorkloadPolicies, admitted: &[&str], refused: &[&str]) {
    for (hosts, expected) in [(admitted, true), (refused, false)] {
        for host in hosts {
            let is_admitted = policies.admits_request(Peer("a/b"), &to_host(host));
            assert_eq!(is_admitted, expected, "{host}");
        }
    }
}

fn deny(hosts: Value) -> std::sync::Arc<WorkloadPolicies> {
    operation("DENY", json!({"hosts": hosts}))
}

#[test]
fn h1_letter_case() {
    check(
        &deny(json!(["secret.com"])),
        &["ok.com", "xsecret.com", "secret.com.au"],
        &["secret.com", "Secret.COM", "SECRET.com"],
    );
    check(&deny(json!(["Secret.Com"])), &["ok.com"], &["secret.com"]);
}

#[test]
fn h2_a_port_is_part_of_the_host() {
    check(
        &deny(json!(["secret.com"])),
        &["secret.com:8080"],
        &["secret.com"],
    );
    check(
        &deny(json!(["secret.com", "secret.com:*"])),
        &["secret.comx:8080"],
        &["secret.com", "secret.com:8080", "Secret.com:80"],
    );
}

#[test]
fn h3_suffixes_and_prefixes_know_no_case() {
    check(
        &deny(json!(["deny.x.com", "*.suffix.x.com", "prefix.x.*"])),
        &["x.com", "suffix.x.com", "xprefix.x.com"],
        &[
            "DENY.X.COM",
            "deny.suffix.x.com",
            "a.b.SUFFIX.x.com",
            "PREFIX.x.com",
        ],
    );
}

#[test]
fn h4_not_hosts() {
    let policies = operation("ALLOW", json!({"notHosts": ["deny.x.com"]}));
    check(
        &policies,
        &["allow.x.com"],
        &["deny.x.com", "Deny.x.com", "deny.x.com."],
    );
}

#[test]
fn h5_a_dot_at_the_end() {
    check(
        &deny(json!(["secret.com", "*.x.com", "secret.com:*"])),
        &["secret.com..", "x.com."],
        &["secret.com.", "Secret.com.", "a.x.com.", "secret.com.:80"],
    );
    check(
        &deny(json!(["secret.com."])),
        &[],
        &["secret.com", "secret.com."],
    );
    check(&deny(json!(["*.x.com."])), &["a.x.com"], &["a.x.com."]);
    let allowing = operation("ALLOW", json!({"hosts": ["ok.com"]}));
    check(&allowing, &["ok.com", "ok.com."], &["ok.com.evil"]);
}

#[test]
fn h6_a_host_header_is_not_the_authority() {
    let policies = deny(json!(["secret.com"]));
    let mut request = to_host("secret.com");
    let other = http::HeaderValue::from_static("ok.com");
    request.headers.append(http::header::HOST, other.clone());
    request.headers.append("x-forwarded-host", other);
    assert!(!policies.admits_request(Peer("a/b"), &request));
    request.authority = "ok.com".to_owned();
    assert!(policies.admits_request(Peer("a/b"), &request));
}

#[test]
fn an_absent_host_satisfies_only_negatives() {
    for (action, field, value, admitted) in [
        ("ALLOW", "hosts", "*", false),
        ("DENY", "hosts", "*", true),
        ("ALLOW", "notHosts", "a.com", true),
        ("DENY", "notHosts", "a.com", false),
    ] {
        let policies = operation(action, json!({field: [value]}));
        let is_admitted = policies.admits_request(Peer("a/b"), &to_host(""));
        assert_eq!(is_admitted, admitted, "{action} {field}");
    }
    check(&deny(json!(["*"])), &[], &["a.com", "[::1]:80"]);
}
