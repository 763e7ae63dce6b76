//! Reads an AuthorizationPolicy and refuses what Istio's admission refuses.

use std::sync::Arc;

use super::criterion::Criterion;
use super::values::{
    Context, block, expanded, host, namespace, path, port, principal, refuse_in_custom,
    request_principal, service_account, text, trust_domain, twins,
};
use super::when::condition;
use super::{Action, AuthorizationPolicy, Enforcement, Rule};
use crate::attachment::{ATTACHMENT_FIELDS, Attachment, attachment};
use crate::matcher::StringMatch;
use crate::reader::{NotEnforced, Parsed, SpecNode, Warning, dry_run, refused};
use ambit_model::{PolicyObject, TrustBundle};

/// The most rules of a policy, and the most sources of a rule.
const MOST_RULES: usize = 512;

/// The scheme of a SPIFFE identity, which a principal does not have.
const SCHEME: &str = "spiffe://";

/// The most `serviceAccounts` of a source.
const MOST_ACCOUNTS: usize = 16;

/// An AuthorizationPolicy, as far as it could be read. It counts as a dry run only if its annotation
/// and its action can be read.
pub(crate) type ParsedAuthorization = Parsed<Attachment, Arc<AuthorizationPolicy>>;

/// Reads an AuthorizationPolicy.
pub(crate) fn parse(object: &Arc<PolicyObject>, bundle: &TrustBundle) -> ParsedAuthorization {
    let spec = SpecNode::spec(&object.spec);
    let (mut warnings, mut more_errors) = (Vec::new(), Vec::new());
    let attached = attachment(&spec, &mut warnings);
    let action = spec.fields().and_then(|fields| {
        let field = fields.into_iter().find(|(name, _)| *name == "action");
        field.map_or(Ok(Action::Allow), |(_, field)| read_action(&field))
    });
    let rules = attached
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|_| action.clone())
        .and_then(|action| {
            let context = Context {
                policy: &object.name,
                bundle,
                action,
            };
            authorization(object, &spec, &context, &mut more_errors)
        });
    let enforcement = action
        .clone()
        .and_then(|action| enforcement(object, action))
        .unwrap_or(Enforcement::Enforced);
    if let Ok(policy) = &rules {
        warnings.extend(wide_denial(policy));
        warnings.extend(empty_clauses(&spec));
        warnings.extend(written_schemes(policy));
    }
    Parsed {
        object: Arc::clone(object),
        selector: attached.unwrap_or(Attachment::Everything),
        action: action.ok(),
        enforcement,
        content: rules.map(Arc::new),
        more_errors,
        warnings,
    }
}

fn authorization(
    object: &PolicyObject,
    spec: &SpecNode<'_>,
    context: &Context<'_>,
    more_errors: &mut Vec<NotEnforced>,
) -> Result<AuthorizationPolicy, NotEnforced> {
    let action = context.action;
    let enforcement = enforcement(object, action)?;
    let (mut rules, mut provider) = (Vec::new(), None);
    for (name, field) in spec.fields()? {
        match name {
            "action" => {}
            _ if ATTACHMENT_FIELDS.contains(&name) => {}
            "provider" if action == Action::Custom => provider = provider_name(&field)?,
            "provider" => return field.fail("only a CUSTOM policy can have a provider; remove it"),
            "rules" => {
                let elements = field.optional_elements()?;
                if elements.len() > MOST_RULES {
                    return field.fail(format!("a policy can have at most {MOST_RULES} rules"));
                }
                let read = elements.iter().map(|node| rule(node, context));
                rules = all(read, more_errors)?;
            }
            _ => return field.unknown(),
        }
    }
    match (action, rules.is_empty(), provider) {
        (Action::Deny | Action::Custom, true, _) => {
            let action = action.as_str();
            spec.fail(format!(
                "a {action} policy without rules never matches; add a rule"
            ))
        }
        (Action::Custom, false, None) => {
            spec.fail("a CUSTOM policy needs provider.name: the name of an external authorizer")
        }
        _ => Ok(AuthorizationPolicy {
            action,
            enforcement,
            provider: provider.map(Arc::from),
            rules,
        }),
    }
}

/// Returns all values, or the first error; further errors go to `more`.
fn all<T>(
    results: impl Iterator<Item = Result<T, NotEnforced>>,
    more: &mut Vec<NotEnforced>,
) -> Result<Vec<T>, NotEnforced> {
    let (mut values, mut first) = (Vec::new(), None);
    for result in results {
        match (result, &first) {
            (Ok(value), _) => values.push(value),
            (Err(error), None) => first = Some(error),
            (Err(error), Some(_)) => more.push(error),
        }
    }
    first.map_or(Ok(values), Err)
}

fn provider_name<'a>(node: &SpecNode<'a>) -> Result<Option<&'a str>, NotEnforced> {
    let mut found = None;
    for (name, field) in node.fields()? {
        match name {
            "name" => found = Some(field.text()?),
            _ => return field.unknown(),
        }
    }
    Ok(found)
}

/// Whether a policy decides, by its annotation.
fn enforcement(object: &PolicyObject, action: Action) -> Result<Enforcement, NotEnforced> {
    let is_dry_run = dry_run(object)?;
    match (is_dry_run, action) {
        (Some(_), Action::Audit | Action::Custom) => {
            let action = action.as_str();
            let problem = format!("only ALLOW and DENY policies can be dry runs, not {action}");
            Err(refused(object, problem))
        }
        (Some(true), Action::Allow | Action::Deny) => Ok(Enforcement::DryRun),
        (Some(false), Action::Allow | Action::Deny) | (None, _) => Ok(Enforcement::Enforced),
    }
}

fn read_action(node: &SpecNode<'_>) -> Result<Action, NotEnforced> {
    match node.text()? {
        "ALLOW" => Ok(Action::Allow),
        "DENY" => Ok(Action::Deny),
        "AUDIT" => Ok(Action::Audit),
        "CUSTOM" => Ok(Action::Custom),
        other => node.fail(format!(
            "{other:?} is not an action; use ALLOW, DENY, AUDIT or CUSTOM"
        )),
    }
}

fn rule(node: &SpecNode<'_>, context: &Context<'_>) -> Result<Rule, NotEnforced> {
    if node.is_null() {
        return node.fail("this rule is null; write {} for a rule that matches everything");
    }
    let mut rule = Rule::default();
    for (name, field) in node.fields()? {
        match name {
            "from" => {
                rule.from = wrapped(&field, "source", |node| source(node, context))?;
                if rule.from.len() > MOST_RULES {
                    return field.fail(format!("a rule can have at most {MOST_RULES} sources"));
                }
            }
            "to" => rule.to = wrapped(&field, "operation", operation)?,
            "when" => {
                let elements = field.optional_elements()?;
                rule.when = elements
                    .iter()
                    .map(|node| condition(node, context))
                    .collect::<Result<_, _>>()?;
            }
            _ => return field.unknown(),
        }
    }
    Ok(rule)
}

/// Reads a list of objects that each have exactly the field `inside`.
fn wrapped<T>(
    node: &SpecNode<'_>,
    inside: &str,
    read: impl Fn(&SpecNode<'_>) -> Result<T, NotEnforced>,
) -> Result<Vec<T>, NotEnforced> {
    let elements = node.elements()?;
    elements
        .iter()
        .map(|element| match element.fields()?.as_slice() {
            [(name, field)] if *name == inside => read(field),
            [(name, field)] if *name != inside => field.unknown(),
            _ => element.fail(format!("it needs exactly one field, {inside}")),
        })
        .collect()
}

fn source(node: &SpecNode<'_>, context: &Context<'_>) -> Result<Vec<Criterion>, NotEnforced> {
    let names = |name, not| [name, not];
    let principals =
        |node: &SpecNode<'_>| expanded(node, |node, text| principal(node, text, context.bundle));
    let domains =
        |node: &SpecNode<'_>| expanded(node, |node, text| trust_domain(node, text, context.bundle));
    let accounts = |node: &SpecNode<'_>| {
        node.at_most(MOST_ACCOUNTS)?;
        node.texts(|node, text| service_account(node, text, &context.policy.namespace))
    };
    let read = [
        twins(node, names("principals", "notPrincipals"), principals)?.map(Criterion::Principal),
        twins(node, names("namespaces", "notNamespaces"), |n| {
            n.texts(namespace)
        })?
        .map(Criterion::Namespace),
        twins(
            node,
            names("serviceAccounts", "notServiceAccounts"),
            accounts,
        )?
        .map(Criterion::ServiceAccount),
        twins(node, names("trustDomains", "notTrustDomains"), domains)?.map(Criterion::TrustDomain),
        twins(node, names("ipBlocks", "notIpBlocks"), |n| n.texts(block))?.map(Criterion::SourceIp),
        twins(node, names("remoteIpBlocks", "notRemoteIpBlocks"), |n| {
            n.texts(block)
        })?
        .map(Criterion::RemoteIp),
        twins(
            node,
            names("requestPrincipals", "notRequestPrincipals"),
            |n| n.texts(request_principal),
        )?
        .map(Criterion::RequestPrincipal),
    ];
    const NAMES: [&str; 14] = [
        "principals",
        "notPrincipals",
        "namespaces",
        "notNamespaces",
        "serviceAccounts",
        "notServiceAccounts",
        "trustDomains",
        "notTrustDomains",
        "ipBlocks",
        "notIpBlocks",
        "remoteIpBlocks",
        "notRemoteIpBlocks",
        "requestPrincipals",
        "notRequestPrincipals",
    ];
    let [principal, namespace, account, ..] = &read;
    if account.is_some() && (principal.is_some() || namespace.is_some()) {
        return node.fail("serviceAccounts cannot be combined with principals or namespaces");
    }
    let criteria: Vec<_> = read.into_iter().flatten().collect();
    for (name, field) in node.fields()? {
        if !NAMES.contains(&name) {
            return field.unknown();
        }
    }
    refuse_in_custom(node, context, &criteria)?;
    not_empty(node, criteria, "a source")
}

fn operation(node: &SpecNode<'_>) -> Result<Vec<Criterion>, NotEnforced> {
    const NAMES: [&str; 8] = [
        "hosts",
        "notHosts",
        "ports",
        "notPorts",
        "methods",
        "notMethods",
        "paths",
        "notPaths",
    ];
    for (name, field) in node.fields()? {
        if !NAMES.contains(&name) {
            return field.unknown();
        }
    }
    let read = [
        twins(node, ["ports", "notPorts"], |n| n.texts(port))?.map(Criterion::DestinationPort),
        twins(node, ["hosts", "notHosts"], |n| n.texts(host))?.map(Criterion::Host),
        twins(node, ["methods", "notMethods"], |n| n.texts(text))?.map(Criterion::Method),
        twins(node, ["paths", "notPaths"], |n| n.texts(path))?.map(Criterion::Path),
    ];
    not_empty(node, read.into_iter().flatten().collect(), "an operation")
}

fn not_empty(
    node: &SpecNode<'_>,
    criteria: Vec<Criterion>,
    what: &str,
) -> Result<Vec<Criterion>, NotEnforced> {
    if criteria.is_empty() {
        return node.fail(format!("{what} needs at least one field"));
    }
    Ok(criteria)
}

/// Warns of principals that begin with the scheme: they match no caller, as in Istio.
fn written_schemes(policy: &AuthorizationPolicy) -> Vec<Warning> {
    let begins_so = |value: &StringMatch| match value {
        StringMatch::Exact(text) | StringMatch::Prefix(text) => text.starts_with(SCHEME),
        StringMatch::Suffix(_) | StringMatch::Presence => false,
    };
    let is_void = |criterion: &Criterion| match criterion {
        Criterion::Principal(field) => field.positive.iter().chain(&field.negative).any(begins_so),
        _ => false,
    };
    let rules = policy.rules.iter().enumerate();
    rules
        .filter(|(_, rule)| rule.all_criteria().any(is_void))
        .map(|(index, _)| Warning {
            path: format!("spec.rules[{index}]"),
            problem: format!(
                "a principal that begins with {SCHEME} matches no caller, as in Istio; remove the \
                 scheme"
            ),
        })
        .collect()
}

/// Warns of `from` and `to` that are empty lists: they do not restrict the rule.
fn empty_clauses(spec: &SpecNode<'_>) -> Vec<Warning> {
    let rules = spec.field("rules").map(|rules| rules.elements());
    let rules = rules.and_then(Result::ok).unwrap_or_default();
    let clauses = rules.iter();
    clauses
        .flat_map(|rule| {
            ["from", "to"]
                .into_iter()
                .filter_map(|name| rule.field(name))
        })
        .filter(SpecNode::is_empty_list)
        .map(|clause| {
            clause.warning(
                "an empty list restricts nothing, as in Istio; remove the field to say so, or add the \
                 intended entries",
            )
        })
        .collect()
}

/// Warns of a DENY rule that is wider on ports without HTTP than it looks.
fn wide_denial(policy: &AuthorizationPolicy) -> Vec<Warning> {
    if policy.action != Action::Deny {
        return Vec::new();
    }
    let is_about_port = |operation: &Vec<Criterion>| {
        operation
            .iter()
            .any(|criterion| matches!(criterion, Criterion::DestinationPort(_)))
    };
    let widens = |rule: &&Rule| rule.mentions_http() && !rule.to.iter().any(is_about_port);
    let wide = policy
        .rules
        .iter()
        .enumerate()
        .find(|(_, rule)| widens(rule));
    let warning = wide.map(|(index, _)| Warning {
        path: format!("spec.rules[{index}]"),
        problem:
            "it depends on HTTP and names no port: on ports that do not carry HTTP, its criteria \
                  about HTTP are left out and it denies more; add the ports that it is about"
                .to_owned(),
    });
    warning.into_iter().collect()
}
