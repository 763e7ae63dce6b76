//! What rules about HTTP mean for bytes that are not HTTP: cases T-1 to T-3 of the manual, and the
//! rules of Istio's golden file for a DENY policy on TCP (`tcp/deny-both-http-tcp`).

use serde_json::{Value, json};

use super::TestCaller::{Foreign, Peer, Plaintext};
use super::{TestCaller, TestMesh};

fn deny(rule: Value) -> TestMesh {
    let spec = json!({"action": "DENY", "rules": [rule]});
    TestMesh::new().authorize("prod/policy", spec)
}

fn allow(rule: Value) -> TestMesh {
    TestMesh::new().authorize("prod/policy", json!({"rules": [rule]}))
}

/// Which callers a rule denies, and at which ports.
#[derive(Clone, Copy, Debug)]
enum Denied {
    Everything,
    Port(u16),
    Namespace(&'static str),
    Both(&'static str, u16),
}

impl Denied {
    fn includes(self, caller: TestCaller, port: u16) -> bool {
        let namespace = caller.calls(port).identity;
        let is_of = |name| {
            namespace
                .as_ref()
                .is_some_and(|own| own.namespace() == name)
        };
        match self {
            Self::Everything => true,
            Self::Port(own) => own == port,
            Self::Namespace(name) => is_of(name),
            Self::Both(name, own) => is_of(name) && own == port,
        }
    }
}

#[test]
fn the_golden_table() {
    let token = || json!([{"source": {"requestPrincipals": ["id-1"]}}]);
    let methods = || json!([{"operation": {"methods": ["GET"]}}]);
    let from = |source: Value| json!([{"source": source}]);
    let to = |operation: Value| json!([{"operation": operation}]);
    let when = |key: &str, value: &str| json!({"when": [{"key": key, "values": [value]}]});
    let http_and_port = || to(json!({"ports": ["8080"], "methods": ["GET"]}));
    let table = [
        (
            json!({"from": token(), "to": methods()}),
            Denied::Everything,
        ),
        (json!({"to": methods()}), Denied::Everything),
        (json!({"from": token()}), Denied::Everything),
        (
            json!({"from": from(json!({"namespaces": ["ns-1"]})), "to": methods()}),
            Denied::Namespace("ns-1"),
        ),
        (
            json!({"from": token(), "to": to(json!({"ports": ["80"]}))}),
            Denied::Port(80),
        ),
        (
            json!({"from": token(), "to": http_and_port()}),
            Denied::Port(8080),
        ),
        (
            json!({
                "from": from(json!({"namespaces": ["ns-2"], "requestPrincipals": ["id-1"]})),
                "to": http_and_port(),
            }),
            Denied::Both("ns-2", 8080),
        ),
        (
            json!({
                "from": from(json!({"namespaces": ["ns-1"]})),
                "to": to(json!({"ports": ["80"]})),
            }),
            Denied::Both("ns-1", 80),
        ),
        (when("request.headers[:method]", "GET"), Denied::Everything),
        (when("destination.port", "80"), Denied::Port(80)),
    ];
    for (row, (rule, denied)) in table.into_iter().enumerate() {
        let policies = deny(rule.clone()).policies();
        for caller in [
            Plaintext,
            Peer("ns-1/a"),
            Peer("ns-2/a"),
            Foreign("td", "ns-2/a"),
        ] {
            for port in [80, 8080, 9090] {
                let expected = !denied.includes(caller, port);
                let admitted = policies.admits(caller, port);
                assert_eq!(admitted, expected, "row {row}, {rule}: {caller:?} {port}");
            }
        }
    }
}

#[test]
fn t1_a_denial_of_a_method_denies_what_has_none() {
    let rule = || json!({"to": [{"operation": {"methods": ["GET"]}}]});
    assert!(!deny(rule()).admits(Plaintext));
    assert!(!deny(rule()).admits(Peer("a/b")));
    let spec = json!({"action": "DENY", "rules": [rule()]});
    let declared = TestMesh::http().authorize("prod/policy", spec).policies();
    assert!(!declared.admits(Peer("a/b"), 8080));
    assert!(declared.admits_request(Peer("a/b"), &super::request("POST", "/")));
}

#[test]
fn t1_one_alternative_on_http_denies_all() {
    let operations = json!([{"operation": {"ports": ["80"]}}, {"operation": {"methods": ["GET"]}}]);
    let policies = deny(json!({"to": operations})).policies();
    assert!(!policies.admits(Plaintext, 80));
    assert!(!policies.admits(Plaintext, 9090));
}

#[test]
fn t1_negatives_are_left_out_too() {
    for operation in [
        json!({"notMethods": ["GET"]}),
        json!({"notPaths": ["/x"]}),
        json!({"notHosts": ["x"]}),
    ] {
        let policies = deny(json!({"to": [{"operation": operation}]})).policies();
        assert!(!policies.admits(Plaintext, 80), "{operation}");
    }
}

#[test]
fn t2_a_permission_on_http_permits_nothing_else() {
    for rule in [
        json!({"to": [{"operation": {"methods": ["*"]}}]}),
        json!({"to": [{"operation": {"notPaths": ["/x"]}}]}),
        json!({"from": [{"source": {"notRequestPrincipals": ["a/b"]}}]}),
        json!({"when": [{"key": "request.headers[x]", "notValues": ["y"]}]}),
        json!({"when": [{"key": "request.auth.claims[x]", "notValues": ["y"]}]}),
    ] {
        assert!(!allow(rule.clone()).admits(Peer("a/b")), "{rule}");
    }
}

#[test]
fn t3_a_permission_is_void_by_one_alternative_on_http() {
    let operations =
        |other: Value| json!({"to": [{"operation": {"ports": ["80"]}}, {"operation": other}]});
    let void = allow(operations(json!({"methods": ["GET"]}))).policies();
    assert!(!void.admits(Plaintext, 80));
    let whole = allow(operations(json!({"ports": ["81"]}))).policies();
    assert!(whole.admits(Plaintext, 80));
    let beside = TestMesh::new()
        .authorize(
            "prod/policy",
            json!({"rules": [operations(json!({"methods": ["GET"]}))]}),
        )
        .authorize(
            "prod/other",
            json!({"rules": [operations(json!({"ports": ["81"]}))]}),
        )
        .policies();
    assert!(beside.admits(Plaintext, 80));
}

#[test]
fn the_client_of_opaque_bytes_is_the_caller() {
    let source = |block: &str| json!({"from": [{"source": {"remoteIpBlocks": [block]}}]});
    assert!(allow(source("10.9.0.0/16")).admits(Plaintext));
    assert!(!allow(source("10.8.0.0/16")).admits(Plaintext));
    assert!(!deny(source("10.9.0.0/16")).admits(Plaintext));
    assert!(deny(source("10.8.0.0/16")).admits(Plaintext));
}
