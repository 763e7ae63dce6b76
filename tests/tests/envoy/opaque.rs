//! Policies on connections that do not carry HTTP: a field about requests makes an allowing rule match
//! nothing, and is ignored in a denying rule.

use serde_json::{Value, json};

use crate::case::Case;
use crate::hand_picked::{each, of_operation, of_source, policy, sets, when};
use crate::listener::PORT;
use crate::peer::PEERS;
use crate::pools::SOURCES;
use crate::request::{Request, get};

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let mut all = golden_table();
    for (field, values) in SOURCES {
        all.extend(each(values, |value, is| of_source(field, value, is)));
    }
    let port = PORT.to_string();
    for port in [&port, "80"] {
        all.extend(each(&[port], |value, is| of_operation("ports", value, is)));
    }
    for (field, value) in [("methods", "GET"), ("hosts", "web"), ("paths", "*")] {
        all.extend(each(&[value], |value, is| of_operation(field, value, is)));
    }
    for key in [
        "request.headers[x-role]",
        "request.headers[:method]",
        "request.auth.claims[scope]",
        "request.auth.principal",
    ] {
        all.extend(each(&["*"], |value, is| when(key, value, is)));
    }
    all.extend(sets());
    let case = |policies| Case::opaque(policies, everybody());
    all.into_iter().map(case).collect()
}

/// Each peer, from its own address.
fn everybody() -> Vec<Request> {
    let peers = PEERS.into_iter().zip([2, 9].into_iter().cycle());
    peers
        .map(|(peer, last)| get("/").from(peer).at(last))
        .collect()
}

/// Rules of which a part is about HTTP, for both actions: Istio's own examples among them.
fn golden_table() -> Vec<Vec<Value>> {
    let port = PORT.to_string();
    let token = || json!([{"source": {"requestPrincipals": ["id-1"]}}]);
    let namespace = |name: &str| json!([{"source": {"namespaces": [name]}}]);
    let methods = || json!([{"operation": {"methods": ["GET"]}}]);
    let to = |ports: &[&str]| json!([{"operation": {"ports": ports}}]);
    let both = || json!([{"operation": {"ports": [port], "methods": ["GET"]}}]);
    let either = || json!([{"operation": {"ports": ["80"]}}, {"operation": {"methods": ["GET"]}}]);
    let rules = [
        json!({"from": token(), "to": methods()}),
        json!({"from": namespace("prod"), "to": methods()}),
        json!({"from": token(), "to": to(&["80"])}),
        json!({"from": token(), "to": to(&[&port])}),
        json!({"from": token(), "to": both()}),
        json!({
            "from": [{"source": {"namespaces": ["test"], "requestPrincipals": ["id-1"]}}],
            "to": both(),
        }),
        json!({"from": namespace("prod"), "to": to(&[&port])}),
        json!({"from": namespace("prod"), "to": to(&["80"])}),
        json!({"to": either()}),
        json!({"from": [
            {"source": {"namespaces": ["prod"]}},
            {"source": {"requestPrincipals": ["*"]}},
        ]}),
        json!({
            "from": namespace("prod"),
            "when": [{"key": "request.headers[x]", "values": ["y"]}],
        }),
        json!({"when": [
            {"key": "source.namespace", "values": ["prod"]},
            {"key": "request.auth.audiences", "notValues": ["y"]},
        ]}),
    ];
    let mut all = Vec::new();
    for rule in rules {
        let allowing = policy("ALLOW", &rule);
        let beside = policy("ALLOW", &json!({"from": namespace("test")}));
        all.push(vec![policy("DENY", &rule)]);
        all.push(vec![allowing.clone()]);
        all.push(vec![allowing, beside]);
    }
    all
}
