//! An answer for people.

use crate::policy::explain::{
    Answer, Authentication, Caller, Cause, CriterionText, EndpointResult, Explanation, Request,
    RuleName, RuleText, Verdict,
};

/// How far the labels stand from what they label.
const LABEL_WIDTH: usize = 13;

/// An answer as text.
pub(super) fn text(answer: &Answer) -> String {
    let mut lines = Vec::new();
    for result in &answer.results {
        lines.push(headline(answer, result));
        explanation(&mut lines, &result.explanation);
        for assumption in &answer.assumptions {
            line(&mut lines, "assumed", assumption);
        }
    }
    lines.join("\n")
}

fn headline(answer: &Answer, result: &EndpointResult) -> String {
    let endpoints = result.endpoints.iter();
    let endpoints: Vec<_> = endpoints
        .map(|endpoint| format!("{} {}", endpoint.pod, endpoint.address))
        .collect();
    let verdict = result.explanation.verdict;
    let request = answer.request.as_ref().map(request).unwrap_or_default();
    let caller = caller(&answer.caller);
    format!("{verdict}  {caller} → {}{request}", endpoints.join(", "))
}

fn request(request: &Request) -> String {
    format!("  {} {}", request.method, request.raw_path)
}

fn caller(caller: &Caller) -> String {
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
        .map(|one| format!("{} {}", one.field, one.wants))
        .collect();
    format!(
        "{} {} where {}",
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

/// Without its origin, which stands elsewhere in the answer.
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

fn mutual_tls(authentication: &Authentication) -> String {
    let object = match &authentication.object {
        Some(object) => format!("by {object}"),
        None => "no PeerAuthentication applies".to_owned(),
    };
    let plaintext = match authentication.plaintext {
        Verdict::Allow => "plaintext would be allowed",
        Verdict::Deny => "plaintext would be refused",
        Verdict::DependsOnRequest => "plaintext would be judged by its requests",
        Verdict::DependsOnAuthorizer => "plaintext would depend on the external authorizer",
        Verdict::NotEnforced => "plaintext is not judged",
    };
    format!("{}, {object}; {plaintext}", authentication.mode)
}
