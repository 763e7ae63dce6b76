//! An answer for people.

use ambit_policy::explain::{
    AccessExplanation, AccessVerdict, Cause, CriterionText, EndpointResult, ExplainedCaller,
    ExplainedRequest, Explanation, PortAuthentication, RuleName, RuleText,
};

/// The width of the column of labels.
const LABEL_WIDTH: usize = 13;

/// An answer as lines of text.
pub(super) fn lines(answer: &AccessExplanation) -> Vec<String> {
    let mut lines = Vec::new();
    for result in &answer.results {
        lines.push(headline(answer, result));
        explanation(&mut lines, &result.explanation);
    }
    for assumption in &answer.assumptions {
        line(&mut lines, "assumed", assumption);
    }
    lines
}

fn headline(answer: &AccessExplanation, result: &EndpointResult) -> String {
    let endpoints = result.endpoints.iter();
    let endpoints: Vec<_> = endpoints
        .map(|endpoint| format!("{} {}", endpoint.pod, endpoint.address))
        .collect();
    let verdict = result.explanation.verdict;
    let request = answer.request.as_ref().map(request).unwrap_or_default();
    let caller = caller(&answer.caller);
    format!("{verdict}  {caller} → {}{request}", endpoints.join(", "))
}

fn request(request: &ExplainedRequest) -> String {
    format!("  {} {}", request.method, request.path_and_query)
}

fn caller(caller: &ExplainedCaller) -> String {
    match (&caller.identity, &caller.address) {
        (Some(identity), _) => identity.to_string(),
        (None, Some(address)) => format!("plaintext from {address}"),
        (None, None) => "plaintext".to_owned(),
    }
}

fn explanation(lines: &mut Vec<String>, explanation: &Explanation) {
    line(lines, "decided by", &explanation.decided.to_string());
    line(lines, "because", &because(explanation));
    for criterion in &explanation.matched {
        line(lines, "matched", &criterion.to_string());
    }
    if let Some(rule) = &explanation.nearest {
        line(lines, "nearest", &nearest(rule));
    }
    for rule in &explanation.undecided {
        line(lines, "undecided", &undecided(rule));
    }
    if let Some(authentication) = &explanation.authentication {
        line(lines, "mutual TLS", &mutual_tls(authentication));
    }
    for note in &explanation.notes {
        line(lines, "note", note);
    }
}

fn line(lines: &mut Vec<String>, label: &str, text: &str) {
    lines.push(format!("  {label:LABEL_WIDTH$}{text}"));
}

fn because(explanation: &Explanation) -> String {
    match &explanation.cause {
        Cause::AllowRule { rule } => format!("{rule} allows it"),
        Cause::NoAllowPolicy => {
            "no DENY rule matched, and no ALLOW policy applies to the port".to_owned()
        }
        Cause::DenyRule { rule } => format!("{rule} denies it"),
        Cause::Strict { object } => {
            format!("{object} makes the port STRICT, and the caller comes in plaintext")
        }
        Cause::NoAllowMatched { policies } => no_allow(policies),
        Cause::NotEnforceable { object, message } => {
            let message = message.as_deref().unwrap_or("it cannot be enforced");
            format!("{object}: {message}")
        }
        Cause::Authorizer { rule, provider } => {
            format!("{rule} asks the external authorizer {provider:?}; all else allows it")
        }
        Cause::NoSuchAuthorizer { rule } => {
            format!("{rule} asks an external authorizer that the mesh configuration does not have")
        }
        Cause::SeveralAuthorizers { rule } => format!(
            "{rule} matches, and CUSTOM policies of the port name different external authorizers: \
             none is asked, and what they match is refused"
        ),
        Cause::Request => "rules depend on the request; say it with --method and --path".to_owned(),
        Cause::NotEnrolled { reason } => reason.clone(),
    }
}

fn no_allow(policies: &[RuleName]) -> String {
    let names: Vec<_> = policies.iter().map(ToString::to_string).collect();
    let verb = match policies.len() {
        1 => "applies",
        _ => "apply",
    };
    format!("no ALLOW policy matched; {} {verb}", names.join(", "))
}

fn nearest(rule: &RuleText) -> String {
    format!("{}: {}", short(&rule.rule), criteria(&rule.criteria))
}

fn undecided(rule: &RuleText) -> String {
    let wants = rule.criteria.iter();
    let wants: Vec<_> = wants
        .map(|one| format!("{} is {}", one.field, one.wants))
        .collect();
    format!(
        "{} {} if {}",
        short(&rule.rule),
        effect(&rule.action),
        wants.join(" and ")
    )
}

fn effect(action: &str) -> &'static str {
    match action {
        "DENY" => "denies",
        "CUSTOM" => "asks its authorizer",
        _ => "allows",
    }
}

/// Without its origin, which is elsewhere in the answer.
fn short(rule: &RuleName) -> String {
    let short = RuleName {
        origin: None,
        ..rule.clone()
    };
    short.to_string()
}

fn criteria(criteria: &[CriterionText]) -> String {
    let texts: Vec<_> = criteria.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

fn mutual_tls(authentication: &PortAuthentication) -> String {
    let object = match &authentication.object {
        Some(object) => format!("by {object}"),
        None => "no PeerAuthentication applies".to_owned(),
    };
    let plaintext = match authentication.plaintext {
        AccessVerdict::Allow => "plaintext would be allowed",
        AccessVerdict::Deny => "plaintext would be refused",
        AccessVerdict::DependsOnRequest => "plaintext would be judged by its requests",
        AccessVerdict::DependsOnAuthorizer => "plaintext would depend on the external authorizer",
        AccessVerdict::NotEnforced => "plaintext is not judged",
    };
    format!("{}, {object}; {plaintext}", authentication.mode)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn text(answer: &AccessExplanation) -> String {
        lines(answer).join("\n")
    }

    /// An answer of one result, with these fields in place of a denial's.
    fn answer(changed: Value) -> AccessExplanation {
        let policy = json!({"kind": "AuthorizationPolicy", "name": "payments/allow-orders",
            "rule": null, "origin": "payments.yaml, document 2"});
        let mut rule = policy.clone();
        rule["rule"] = json!(0);
        let mut result = json!({
            "endpoints": [{"pod": "payments/payments-0", "address": "10.78.2.11:8080"}],
            "verdict": "DENY", "decided": "proxy-per-request",
            "cause": {"kind": "no-allow-matched", "policies": [policy]},
            "matched": [], "undecided": [], "authentication": null, "notes": [],
            "nearest": {"rule": rule, "action": "ALLOW", "criteria": [{"field": "paths",
                "wants": "one of \"/charge\"", "found": "the path is \"/admin\""}]},
        });
        for (name, value) in changed.as_object().expect("an object") {
            result[name] = value.clone();
        }
        serde_json::from_value(json!({
            "caller": {"identity": "cluster.local/ns/web/sa/frontend", "address": null,
                "pod": null},
            "destination": "pod payments/payments-0",
            "request": {"method": "GET", "host": "x", "path": "/admin", "path_and_query": "/admin"},
            "assumptions": ["this"],
            "results": [result],
        }))
        .expect("an answer")
    }

    #[test]
    fn a_denial_reads_from_the_verdict_to_the_nearest_rule() {
        assert_eq!(
            text(&answer(json!({}))),
            "DENY  cluster.local/ns/web/sa/frontend → payments/payments-0 10.78.2.11:8080  GET \
             /admin\n  decided by   the node's proxy, per request\n  because      no ALLOW policy \
             matched; AuthorizationPolicy payments/allow-orders (payments.yaml, document 2) \
             applies\n  nearest      rule 0 of AuthorizationPolicy payments/allow-orders: paths \
             wants one of \"/charge\", the path is \"/admin\"\n  assumed      this"
        );
    }

    #[test]
    fn each_cause_is_a_sentence() {
        let object = json!({"kind": "PeerAuthentication", "name": "a/b", "rule": null,
            "origin": null});
        for (cause, words) in [
            (
                json!({"kind": "allow-rule", "rule": object}),
                "PeerAuthentication a/b allows it",
            ),
            (
                json!({"kind": "no-allow-policy"}),
                "no ALLOW policy applies",
            ),
            (
                json!({"kind": "deny-rule", "rule": object}),
                "a/b denies it",
            ),
            (
                json!({"kind": "strict", "object": object}),
                "a/b makes the port STRICT",
            ),
            (
                json!({"kind": "not-enforceable", "object": object, "message": "broken"}),
                "a/b: broken",
            ),
            (
                json!({"kind": "authorizer", "rule": object, "provider": "opa"}),
                "external authorizer \"opa\"",
            ),
            (
                json!({"kind": "no-such-authorizer", "rule": object}),
                "does not have",
            ),
            (json!({"kind": "request"}), "--method"),
            (
                json!({"kind": "not-enrolled", "reason": "it is outside"}),
                "it is outside",
            ),
        ] {
            let shown = text(&answer(json!({"cause": cause})));
            assert!(shown.contains(words), "{words}: {shown}");
        }
    }

    #[test]
    fn what_is_undecided_and_what_plaintext_gets_are_shown() {
        let object = json!({"kind": "PeerAuthentication", "name": "a/b", "rule": null,
            "origin": null});
        let shown = text(&answer(json!({
            "verdict": "DEPENDS_ON_REQUEST",
            "undecided": [{"rule": object, "action": "DENY", "criteria": [
                {"field": "paths", "wants": "one of \"/a\"", "found": ""},
            ]}],
            "authentication": {"mode": "STRICT", "object": object, "plaintext": "DENY"},
        })));
        assert!(shown.starts_with("DEPENDS ON THE REQUEST"), "{shown}");
        assert!(
            shown.contains("a/b denies if paths is one of \"/a\""),
            "{shown}"
        );
        let mutual_tls = "STRICT, by PeerAuthentication a/b; plaintext would be refused";
        assert!(shown.contains(mutual_tls), "{shown}");
    }
}
