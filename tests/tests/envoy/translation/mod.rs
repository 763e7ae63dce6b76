//! Translates AuthorizationPolicies into Envoy's RBAC filters, by Istio's documentation. Written
//! independently of Ambit's evaluator, and only for policies that Istio admits.

mod expression;
mod opaque;
mod values;

use serde_json::{Map, Value, json};

use crate::listener::typed;
use expression::Expression;
use opaque::without_http;
use values::{
    claim, destination_block, header, host, namespace, path, port, principal, request_principal,
    server_name, service_account, source_block, trust_domain,
};

/// One filter of requests for DENY, then one for ALLOW, each only if there are policies with this action.
pub(crate) fn http_filters(policies: &[Value]) -> Vec<Value> {
    let rules = rules(policies).into_iter();
    rules
        .map(|rules| {
            json!({
                "name": "envoy.filters.http.rbac",
                "typed_config": typed(
                    "envoy.extensions.filters.http.rbac.v3.RBAC",
                    json!({"rules": rules}),
                ),
            })
        })
        .collect()
}

/// The same for connections that do not carry HTTP.
pub(crate) fn network_filters(policies: &[Value]) -> Vec<Value> {
    let left: Vec<_> = policies.iter().map(without_http).collect();
    let rules = rules(&left).into_iter();
    rules
        .map(|rules| {
            json!({
                "name": "envoy.filters.network.rbac",
                "typed_config": typed(
                    "envoy.extensions.filters.network.rbac.v3.RBAC",
                    json!({"rules": rules, "stat_prefix": "test"}),
                ),
            })
        })
        .collect()
}

fn rules(policies: &[Value]) -> Vec<Value> {
    let all = ["DENY", "ALLOW"].into_iter();
    all.filter_map(|action| rules_of(action, policies))
        .collect()
}

fn rules_of(action: &str, policies: &[Value]) -> Option<Value> {
    let is_own = |policy: &&Value| policy["action"].as_str().unwrap_or("ALLOW") == action;
    let own: Vec<_> = policies.iter().filter(is_own).collect();
    if own.is_empty() {
        return None;
    }
    let mut rules = Map::new();
    for one in own.iter().flat_map(|policy| list(&policy["rules"])) {
        rules.insert(format!("rule-{}", rules.len()), rule(one));
    }
    Some(json!({"action": action, "policies": rules}))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Envoy's principals can express everything in a rule except what is about the destination.
fn rule(rule: &Value) -> Value {
    let alternatives = |clause: &str, inside: &str| {
        let all: Vec<_> = list(&rule[clause])
            .map(|one| fields(&one[inside]))
            .collect();
        (!all.is_empty()).then_some(Expression::Any(all))
    };
    let clauses = [
        alternatives("from", "source"),
        alternatives("to", "operation"),
    ];
    let conditions = list(&rule["when"]).map(condition);
    let all: Vec<_> = clauses.into_iter().flatten().chain(conditions).collect();
    Expression::All(all).policy()
}

/// All fields of a source or an operation.
fn fields(object: &Value) -> Expression {
    let own = object.as_object().into_iter().flatten();
    let all = own.map(|(name, values)| {
        let (positive, is_negative) = positive(name);
        let any = Expression::Any(
            list(values)
                .map(|value| matcher(&positive, value))
                .collect(),
        );
        if is_negative { any.not() } else { any }
    });
    Expression::All(all.collect())
}

/// A field's name without its `not`.
fn positive(name: &str) -> (String, bool) {
    match name.strip_prefix("not") {
        Some(rest) => (rest[..1].to_lowercase() + &rest[1..], true),
        None => (name.to_owned(), false),
    }
}

fn condition(condition: &Value) -> Expression {
    let key = condition["key"].as_str().unwrap_or_default();
    let any = |field: &str| {
        let all: Vec<_> = list(&condition[field])
            .map(|value| matcher(key, value))
            .collect();
        (!all.is_empty()).then_some(Expression::Any(all))
    };
    let twins = [any("values"), any("notValues").map(Expression::not)];
    Expression::All(twins.into_iter().flatten().collect())
}

/// A value of a field or of a condition's key.
fn matcher(name: &str, value: &Value) -> Expression {
    let text = value.as_str().unwrap_or_default();
    match name {
        "principals" | "source.principal" => principal(text),
        "namespaces" | "source.namespace" => namespace(text),
        "serviceAccounts" | "source.serviceAccount" => service_account(text),
        "trustDomains" | "source.trustDomain" => trust_domain(text),
        "ipBlocks" | "source.ip" => source_block("direct_remote_ip", text),
        "remoteIpBlocks" | "remote.ip" => source_block("remote_ip", text),
        "requestPrincipals" | "request.auth.principal" => request_principal(text),
        "ports" | "destination.port" => port(text),
        "destination.ip" => destination_block(text),
        "hosts" => host(text),
        "methods" => header(":method", text),
        "paths" => path(text),
        "connection.sni" => server_name(text),
        "request.auth.audiences" => claim(&["aud"], text),
        "request.auth.presenter" => claim(&["azp"], text),
        _ => bracketed(name, text),
    }
}

fn bracketed(key: &str, text: &str) -> Expression {
    let (kind, names) = key.split_once('[').unwrap_or((key, ""));
    let names: Vec<_> = names.trim_end_matches(']').split("][").collect();
    match kind {
        "request.headers" => header(names[0], text),
        "request.auth.claims" => claim(&names, text),
        _ => unreachable!("{key} is not a key of Istio's"),
    }
}
