//! AuthorizationPolicy: its rules, as `security.istio.io` v1 defines them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::decision::Attributes;
use super::matcher::{Field, StringMatch};
use super::reader::{Node, NotEnforced, selector};
use crate::model::{PolicyObject, TrustDomain, WorkloadIdentity};

/// What a matching policy does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Action {
    /// Lets the connection through, unless a DENY policy matches.
    Allow,
    /// Refuses it.
    Deny,
}

impl Action {
    /// As `spec.action` has it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
        }
    }
}

/// The rules of a policy.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Authorization {
    pub(super) action: Action,
    pub(super) rules: Vec<Rule>,
}

/// One of the sources, where there are any, and one of the operations, where there are any.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Rule {
    pub(super) from: Vec<Source>,
    pub(super) to: Vec<Operation>,
}

/// All of its fields.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Source {
    principals: Field<StringMatch>,
    namespaces: Field<StringMatch>,
    pub(super) blocks: Field<IpNet>,
}

/// All of its fields.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Operation {
    pub(super) ports: Field<u16>,
}

impl Rule {
    pub(super) fn matches(&self, connection: &Attributes) -> bool {
        let from = self.from.is_empty() || self.from.iter().any(|from| from.matches(connection));
        let to = self.to.is_empty() || self.to.iter().any(|to| to.matches(connection));
        from && to
    }
}

impl Source {
    fn matches(&self, connection: &Attributes) -> bool {
        self.admits_identity(connection.identity.as_ref())
            && self.blocks.admits_address(connection.source)
    }

    pub(super) fn admits_identity(&self, identity: Option<&WorkloadIdentity>) -> bool {
        let principal = identity.map(ToString::to_string);
        self.principals.admits_text(principal.as_deref())
            && self
                .namespaces
                .admits_text(identity.map(WorkloadIdentity::namespace))
    }
}

impl Operation {
    fn matches(&self, connection: &Attributes) -> bool {
        self.ports.admits_port(connection.destination.port())
    }
}

/// A policy's selector, and its rules or the field that keeps it from being enforced.
pub(super) struct Parsed {
    /// `None`: every workload of its scope.
    pub(super) selector: Option<Vec<(String, String)>>,
    pub(super) rules: Result<Authorization, NotEnforced>,
}

/// Reads an AuthorizationPolicy. A selector that is not understood selects all of the scope.
pub(super) fn parse(object: &PolicyObject, trust_domain: &TrustDomain) -> Parsed {
    let spec = Node::spec(&object.spec);
    let selected = spec.fields().and_then(|fields| {
        let field = fields.into_iter().find(|(name, _)| *name == "selector");
        field.map(|(_, field)| selector(&field)).transpose()
    });
    match selected {
        Ok(selector) => Parsed {
            selector,
            rules: rules(object, &spec, trust_domain),
        },
        Err(error) => Parsed {
            selector: None,
            rules: Err(error),
        },
    }
}

fn rules(
    object: &PolicyObject,
    spec: &Node<'_>,
    trust_domain: &TrustDomain,
) -> Result<Authorization, NotEnforced> {
    refuse_dry_run(object)?;
    let mut action = Action::Allow;
    let mut rules = Vec::new();
    for (name, field) in spec.fields()? {
        match name {
            "selector" => {}
            "action" => action = read_action(&field)?,
            "rules" => {
                let elements = field.optional_elements()?;
                rules = elements
                    .iter()
                    .map(|node| rule(node, trust_domain))
                    .collect::<Result<_, _>>()?;
            }
            _ => return field.unknown(),
        }
    }
    if action == Action::Deny && rules.is_empty() {
        return spec.fail("a DENY policy without rules never denies; add a rule");
    }
    Ok(Authorization { action, rules })
}

/// A dry run is not supported: to enforce it, or not to, would both be wrong.
fn refuse_dry_run(object: &PolicyObject) -> Result<(), NotEnforced> {
    match object
        .annotations
        .get("istio.io/dry-run")
        .map(String::as_str)
    {
        None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(()),
        Some(value) => Err(NotEnforced {
            path: "metadata.annotations[istio.io/dry-run]".to_owned(),
            problem: format!("dry runs are not supported, and the value is {value:?}; remove it"),
        }),
    }
}

fn read_action(node: &Node<'_>) -> Result<Action, NotEnforced> {
    match node.text()? {
        "ALLOW" => Ok(Action::Allow),
        "DENY" => Ok(Action::Deny),
        other => node.fail(format!(
            "the action {other} is not supported; use ALLOW or DENY"
        )),
    }
}

fn rule(node: &Node<'_>, trust_domain: &TrustDomain) -> Result<Rule, NotEnforced> {
    let mut rule = Rule::default();
    for (name, field) in node.fields()? {
        match name {
            "from" => rule.from = wrapped(&field, "source", |node| source(node, trust_domain))?,
            "to" => rule.to = wrapped(&field, "operation", operation)?,
            _ => return field.unknown(),
        }
    }
    Ok(rule)
}

/// Reads a list of objects that each have exactly the field `inside`.
fn wrapped<T>(
    node: &Node<'_>,
    inside: &str,
    read: impl Fn(&Node<'_>) -> Result<T, NotEnforced>,
) -> Result<Vec<T>, NotEnforced> {
    let elements = node.elements()?;
    elements
        .iter()
        .map(|element| match element.fields()?.as_slice() {
            [(name, field)] if *name == inside => read(field),
            [(name, field)] if *name != inside => field.unknown(),
            _ => element.fail(format!("it needs the field {inside}, and no other")),
        })
        .collect()
}

fn source(node: &Node<'_>, trust_domain: &TrustDomain) -> Result<Source, NotEnforced> {
    let mut source = Source::default();
    for (name, field) in node.fields()? {
        let principals = || field.texts(|node, text| principal(node, text, trust_domain));
        match name {
            "principals" => source.principals.positive = principals()?,
            "notPrincipals" => source.principals.negative = principals()?,
            "namespaces" => source.namespaces.positive = field.texts(namespace)?,
            "notNamespaces" => source.namespaces.negative = field.texts(namespace)?,
            "ipBlocks" => source.blocks.positive = field.texts(block)?,
            "notIpBlocks" => source.blocks.negative = field.texts(block)?,
            _ => return field.unknown(),
        }
    }
    if source == Source::default() {
        return node.fail("a source needs a field");
    }
    Ok(source)
}

fn operation(node: &Node<'_>) -> Result<Operation, NotEnforced> {
    let mut operation = Operation::default();
    for (name, field) in node.fields()? {
        match name {
            "ports" => operation.ports.positive = field.texts(port)?,
            "notPorts" => operation.ports.negative = field.texts(port)?,
            _ => return field.unknown(),
        }
    }
    if operation.ports.is_empty() {
        return node.fail("an operation needs a field");
    }
    Ok(operation)
}

/// A principal. `cluster.local` in a whole, five-part one points to the mesh's own trust domain.
fn principal(
    _node: &Node<'_>,
    text: &str,
    trust_domain: &TrustDomain,
) -> Result<StringMatch, NotEnforced> {
    let rest = text.strip_prefix("cluster.local/");
    match rest.filter(|rest| rest.split('/').count() == 4) {
        Some(rest) => Ok(StringMatch::parse(&format!("{trust_domain}/{rest}"))),
        None => Ok(StringMatch::parse(text)),
    }
}

fn namespace(node: &Node<'_>, text: &str) -> Result<StringMatch, NotEnforced> {
    let inner = text.strip_prefix('*').unwrap_or(text);
    if inner.strip_suffix('*').unwrap_or(inner).contains('*') {
        return node.fail("a * inside a namespace means different things to Istio's engines");
    }
    Ok(StringMatch::parse(text))
}

fn port(node: &Node<'_>, text: &str) -> Result<u16, NotEnforced> {
    match text.parse() {
        Ok(port) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => node.fail(format!("{text:?} is not a port from 0 to 65535")),
    }
}

/// A CIDR or an address; IPv4-mapped ones are IPv4.
fn block(node: &Node<'_>, text: &str) -> Result<IpNet, NotEnforced> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_canonical().into());
    }
    match text.parse::<IpNet>() {
        Ok(IpNet::V6(net)) if net.addr().to_ipv4_mapped().is_some() => {
            node.fail("write an IPv4 block as IPv4")
        }
        Ok(net) => Ok(net.trunc()),
        Err(_) => node.fail(format!("{text:?} is neither an address nor a CIDR")),
    }
}
