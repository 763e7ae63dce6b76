//! What remains of a policy for bytes that are not HTTP, by Istio's rules.

use serde_json::Value;

/// Fields of sources and operations that are about requests, without their `not`.
const FIELDS: [&str; 4] = ["hosts", "methods", "paths", "requestPrincipals"];

/// A policy for these bytes: of an ALLOW policy the rules that do not mention HTTP, of a DENY policy
/// its rules without the fields about HTTP.
pub(super) fn without_http(policy: &Value) -> Value {
    let mut policy = policy.clone();
    let is_denial = policy["action"] == "DENY";
    if let Some(rules) = policy["rules"].as_array_mut() {
        rules.retain_mut(|rule| !erase(rule) || is_denial);
    }
    policy
}

/// Removes a rule's fields about HTTP, and returns whether there were any.
fn erase(rule: &mut Value) -> bool {
    let mut has_erased = false;
    for (clause, inside) in [("from", "source"), ("to", "operation")] {
        for one in rule[clause].as_array_mut().into_iter().flatten() {
            if let Some(fields) = one[inside].as_object_mut() {
                let before = fields.len();
                fields.retain(|name, _| !FIELDS.contains(&super::positive(name).0.as_str()));
                has_erased |= fields.len() < before;
            }
        }
    }
    if let Some(conditions) = rule["when"].as_array_mut() {
        let before = conditions.len();
        let is_http = |key: &Value| key.as_str().is_some_and(|key| key.starts_with("request."));
        conditions.retain(|condition| !is_http(&condition["key"]));
        has_erased |= conditions.len() < before;
    }
    has_erased
}
