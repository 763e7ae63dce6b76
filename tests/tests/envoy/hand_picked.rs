//! Policies with known bugs and attacks, and requests that try them.

use serde_json::{Value, json};

use crate::case::{Case, MODES};
use crate::listener::PORT;
use crate::peer::PEERS;
use crate::pools::{
    CLAIMS, HOST_VALUES, HOSTS, METHOD_VALUES, METHODS, PATHS, ROLE_VALUES, ROLES, SOURCES,
    TARGETS, tokens,
};
use crate::request::{Request, get};

/// A policy of one rule.
pub(crate) fn policy(action: &str, rule: &Value) -> Value {
    json!({"action": action, "rules": [rule]})
}

/// A policy on each value of a field alone, by itself and by its twin, for each action.
pub(crate) fn each(values: &[&str], rule: impl Fn(&str, bool) -> Value) -> Vec<Vec<Value>> {
    let mut all = Vec::new();
    for value in values {
        for is_negative in [false, true] {
            for action in ["ALLOW", "DENY"] {
                all.push(vec![policy(action, &rule(value, is_negative))]);
            }
        }
    }
    all
}

fn twin(name: &str) -> String {
    let (first, rest) = name.split_at(1);
    format!("not{}{rest}", first.to_uppercase())
}

pub(crate) fn of_operation(field: &str, value: &str, is_negative: bool) -> Value {
    let field = if is_negative {
        twin(field)
    } else {
        field.to_owned()
    };
    json!({"to": [{"operation": {field: [value]}}]})
}

pub(crate) fn of_source(field: &str, value: &str, is_negative: bool) -> Value {
    let field = if is_negative {
        twin(field)
    } else {
        field.to_owned()
    };
    json!({"from": [{"source": {field: [value]}}]})
}

pub(crate) fn when(key: &str, value: &str, is_negative: bool) -> Value {
    let field = if is_negative { "notValues" } else { "values" };
    json!({"when": [{"key": key, field: [value]}]})
}

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let base = MODES[1];
    let case = |mode, requests: &[Request]| {
        let requests = requests.to_vec();
        move |policies| Case::undisputed(policies, mode, requests.clone())
    };
    let targets: Vec<_> = TARGETS.iter().map(|target| get(target)).collect();
    let mut all = Vec::new();
    for mode in MODES {
        let by_path = each(&PATHS, |value, is| of_operation("paths", value, is));
        all.extend(by_path.into_iter().map(case(mode, &targets)));
        let by_header = each(&["/admin", "/admin?x=1", "*admin"], |value, is| {
            when("request.headers[:path]", value, is)
        });
        all.extend(by_header.into_iter().map(case(mode, &targets)));
    }
    let hosts: Vec<_> = HOSTS.iter().map(|host| get("/").host(host)).collect();
    let by_host = each(&HOST_VALUES, |value, is| of_operation("hosts", value, is));
    all.extend(by_host.into_iter().map(case(base, &hosts)));
    for key in ["host", ":authority"] {
        let by_header = each(&["secret.com", "*"], |value, is| {
            when(&format!("request.headers[{key}]"), value, is)
        });
        all.extend(by_header.into_iter().map(case(base, &hosts)));
    }
    let methods: Vec<_> = METHODS
        .iter()
        .map(|method| get("/").method(method))
        .collect();
    let by_method = each(&METHOD_VALUES, |value, is| {
        of_operation("methods", value, is)
    });
    all.extend(by_method.into_iter().map(case(base, &methods)));
    let by_role = each(&ROLE_VALUES, |value, is| {
        when("request.headers[X-Role]", value, is)
    });
    all.extend(by_role.into_iter().map(case(base, &roles())));
    for (field, values) in SOURCES {
        let by_source = each(values, |value, is| of_source(field, value, is));
        all.extend(by_source.into_iter().map(case(base, &everybody())));
    }
    for (key, values) in CLAIMS {
        let by_claim = each(values, |value, is| when(key, value, is));
        all.extend(by_claim.into_iter().map(case(base, &everybody())));
    }
    let ports = [PORT.to_string(), "80".to_owned()];
    let ports: Vec<_> = ports.iter().map(String::as_str).collect();
    let by_port = each(&ports, |value, is| of_operation("ports", value, is));
    all.extend(by_port.into_iter().map(case(base, &everybody())));
    let by_destination = each(&["127.0.0.0/8", "10.0.0.0/8"], |value, is| {
        when("destination.ip", value, is)
    });
    all.extend(by_destination.into_iter().map(case(base, &everybody())));
    all.extend(sets().into_iter().map(case(base, &everybody())));
    all
}

/// Lines of `x-role` that Ambit and Envoy treat alike: none, one, two that are equal.
fn roles() -> Vec<Request> {
    let one = ROLES.map(|role| get("/").header("x-role", role));
    let others = [
        get("/"),
        get("/").header("X-ROLE", "  admin  "),
        get("/").header("x_role", "admin"),
        get("/").header("x-roles", "admin"),
        get("/").header("x-role", "bar").header("x-role", "bar"),
        get("/").header(
            "x-forwarded-client-cert",
            "URI=spiffe://cluster.local/ns/prod/sa/a",
        ),
    ];
    one.into_iter().chain(others).collect()
}

/// A request of each peer from each of two addresses, and one with each token.
fn everybody() -> Vec<Request> {
    let peers = PEERS
        .into_iter()
        .flat_map(|peer| [2, 9].map(|last| get("/").from(peer).at(last)));
    let tokens = tokens().into_iter().map(|token| get("/").token(token));
    peers.chain(tokens).collect()
}

/// Sets of policies whose parts must be combined correctly.
pub(crate) fn sets() -> Vec<Vec<Value>> {
    let source = |source: Value| json!({"source": source});
    let namespace = |name: &str| source(json!({"namespaces": [name]}));
    let account = |name: &str| source(json!({"serviceAccounts": [name]}));
    vec![
        vec![],
        vec![json!({})],
        vec![json!({"rules": []})],
        vec![json!({"rules": [{}]})],
        vec![json!({"action": "DENY", "rules": [{}]})],
        vec![json!({"rules": [{}]}), json!({})],
        vec![
            policy("ALLOW", &json!({"from": [namespace("prod")]})),
            policy("DENY", &json!({"from": [account("prod/b")]})),
        ],
        vec![policy(
            "ALLOW",
            &json!({"from": [namespace("prod"), account("test/b")]}),
        )],
        vec![policy(
            "ALLOW",
            &json!({"from": [source(json!({"namespaces": ["*"], "notNamespaces": ["prod"]}))]}),
        )],
        vec![policy(
            "ALLOW",
            &json!({
                "from": [source(json!({"principals": ["*"], "ipBlocks": ["127.0.0.2"]}))],
                "when": [
                    {"key": "source.namespace", "values": ["prod", "test"]},
                    {"key": "source.namespace", "notValues": ["test"]},
                ],
            }),
        )],
        vec![policy(
            "DENY",
            &json!({"from": [
                source(json!({"notPrincipals": ["*"]})),
                source(json!({"notIpBlocks": ["127.0.0.0/29"], "namespaces": ["test"]})),
            ]}),
        )],
        vec![policy(
            "ALLOW",
            &json!({
                "from": [namespace("prod"), namespace("test")],
                "to": [{"operation": {"methods": ["POST"]}}, {"operation": {"ports": [PORT.to_string()], "methods": ["GET"]}}],
            }),
        )],
        vec![policy(
            "ALLOW",
            &json!({
                "from": [source(json!({"requestPrincipals": ["iss/*"], "notRequestPrincipals": ["*/sub-1"]}))],
            }),
        )],
        vec![policy(
            "DENY",
            &json!({"from": [source(json!({"notRequestPrincipals": ["*"]}))]}),
        )],
    ]
}
