//! What to tell an operator about policy objects: about their own fields, and about other objects
//! that they depend on (Services, the mesh configuration, each other).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use super::attachment::Attachment;
use super::authorization::{Action, AuthorizationPolicy, Criterion, ParsedAuthorization, Rule};
use super::index::PolicyIndex;
use super::policy_condition::consequence;
use super::reader::{NotEnforced, Parsed, Warning};
use super::workload_policies::AttachedPorts;
use ambit_model::{ObjectName, ObjectOrigin, PolicyKind, PolicyObject, REVISION_LABEL, Workload};

/// An error or a warning about a field of a policy object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The object's kind.
    pub kind: PolicyKind,
    /// The object's name.
    pub name: ObjectName,
    /// Where the object comes from.
    pub origin: ObjectOrigin,
    /// Whether it is an error.
    pub severity: Severity,
    /// The field, such as `spec.rules[0].to[0].operation.methods`.
    pub field: String,
    /// The field's value, if it is short.
    pub value: Option<String>,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// How severe a finding is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The object cannot be enforced.
    Error,
    /// The object is enforced, but may not do what its author intended.
    Warning,
}

impl PolicyIndex {
    /// The findings about the fields of each object by itself.
    pub fn findings(&self) -> Vec<Finding> {
        let authorizations = self.authorizations.iter().flat_map(findings);
        let token_rules = self.token_rules.iter().flat_map(findings);
        let mut all: Vec<Finding> = authorizations.chain(token_rules).collect();
        for parsed in &self.authentications {
            all.extend(findings(parsed));
            if self.is_root(&parsed.object) && !parsed.selector.is_empty() {
                let ignored = Warning {
                    path: "spec.selector".to_owned(),
                    problem: "an object with a selector in the root namespace applies to nothing; \
                              move it"
                        .to_owned(),
                };
                all.push(warning(&parsed.object, &ignored));
            }
        }
        let others = self.of_other_revisions.iter();
        all.extend(others.map(|object| warning(object, &self.other_revision(object))));
        all
    }

    /// The warning that an object is for another revision and does not apply.
    pub(super) fn other_revision(&self, object: &PolicyObject) -> Warning {
        let revision = object.revision.as_deref().unwrap_or_default();
        let own = self.snapshot.revision().to_string();
        Warning {
            path: format!("metadata.labels[{REVISION_LABEL}]"),
            problem: format!(
                "the object is for the revision {revision:?} of the control plane and does not apply \
                 here, where the revision is {own:?} (--revision); remove the label to have it apply to \
                 every revision"
            ),
        }
    }
}

/// The findings about one object by itself.
fn findings<S, C>(parsed: &Parsed<S, C>) -> Vec<Finding> {
    let consequence = consequence(parsed.action, parsed.enforcement);
    let errors = parsed.content.as_ref().err().into_iter();
    let errors = errors.chain(&parsed.more_errors);
    let warnings = parsed.warnings.iter();
    errors
        .map(|one| error(&parsed.object, one, consequence))
        .chain(warnings.map(|one| warning(&parsed.object, one)))
        .collect()
}

fn error(object: &PolicyObject, error: &NotEnforced, consequence: &str) -> Finding {
    Finding {
        kind: object.kind,
        name: object.name.clone(),
        origin: object.origin.clone(),
        severity: Severity::Error,
        field: error.path.clone(),
        value: error.value.clone(),
        problem: format!("{}; {consequence}", error.problem),
    }
}

pub(super) fn warning(object: &PolicyObject, warning: &Warning) -> Finding {
    Finding {
        kind: object.kind,
        name: object.name.clone(),
        origin: object.origin.clone(),
        severity: Severity::Warning,
        field: warning.path.clone(),
        value: None,
        problem: warning.problem.clone(),
    }
}

impl PolicyIndex {
    /// The findings about policies that cannot work because of other objects. Each check is made only if
    /// those objects are known. `providers` are the external authorizers of the mesh configuration;
    /// `None` if that is not known.
    pub fn cross_check(&self, providers: Option<&BTreeSet<Arc<str>>>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut contradictions = self.several_providers();
        for parsed in &self.authorizations {
            let mut warnings = self.missing_services(parsed);
            warnings.extend(contradictions.remove(&parsed.object.name));
            if let Ok(policy) = &parsed.content {
                warnings.extend(missing_provider(policy, providers));
                warnings.extend(self.unseen_http(parsed, policy));
            }
            findings.extend(warnings.iter().map(|one| warning(&parsed.object, one)));
        }
        findings
    }

    /// Services that a policy refers to and that do not exist, if other Services of its namespace are
    /// known.
    fn missing_services(&self, parsed: &ParsedAuthorization) -> Vec<Warning> {
        let namespace = &parsed.object.name.namespace;
        let mut services = self.snapshot.services().iter();
        let is_known = services.any(|service| service.name.namespace == *namespace);
        let Attachment::Services(names) = &parsed.selector else {
            return Vec::new();
        };
        let is_missing = |name: &&String| is_known && !self.has_service(&parsed.object.name, name);
        let missing = names.iter().filter(is_missing);
        missing
            .map(|name| Warning {
                path: "spec.targetRefs".to_owned(),
                problem: format!(
                    "there is no Service {name} in the namespace {namespace}, so the policy does not \
                     apply to any pod behind it; correct the name"
                ),
            })
            .collect()
    }

    /// Rules about requests on ports that no Service declares as HTTP.
    fn unseen_http(
        &self,
        parsed: &ParsedAuthorization,
        policy: &AuthorizationPolicy,
    ) -> Vec<Warning> {
        let rules = policy.rules.iter().enumerate();
        let of_http = rules.filter(|(_, rule)| rule.mentions_http());
        of_http
            .filter_map(|(index, rule)| {
                let workloads = self.snapshot.workloads().iter();
                let what = workloads
                    .filter(|workload| self.attached_ports(parsed, workload).is_some())
                    .filter(|workload| self.has_ports(workload))
                    .find_map(|workload| self.unseen_port(rule, workload))?;
                Some(Warning {
                    path: format!("spec.rules[{index}]"),
                    problem: format!(
                        "it depends on HTTP, but no Service declares {what} as HTTP (appProtocol, or \
                         the port's name): there, {}; declare the port",
                        meaning_for_bytes(policy.action)
                    ),
                })
            })
            .collect()
    }

    /// Whether any Service declares ports of the workload.
    fn has_ports(&self, workload: &Workload) -> bool {
        let mut services = self.snapshot.services().iter();
        services.any(|service| service.selects(workload))
            || self.snapshot.service_ports(workload).next().is_some()
    }

    /// A port of a workload that a rule is about and that does not carry HTTP.
    fn unseen_port(&self, rule: &Rule, workload: &Workload) -> Option<String> {
        let http = self.snapshot.http_ports(workload);
        let named = rule.all_criteria().filter_map(|criterion| match criterion {
            Criterion::DestinationPort(field) => Some(&field.positive),
            _ => None,
        });
        let named: BTreeSet<u16> = named.flatten().copied().collect();
        let name = &workload.name;
        match (named.difference(&http).next(), named.is_empty()) {
            (Some(port), _) => Some(format!("port {port} of the pod {name}")),
            (None, true) if http.is_empty() => Some(format!("a port of the pod {name}")),
            (None, _) => None,
        }
    }
}

fn missing_provider(
    policy: &AuthorizationPolicy,
    providers: Option<&BTreeSet<Arc<str>>>,
) -> Option<Warning> {
    let provider = policy.provider.as_ref()?;
    let is_missing = !providers?.contains(provider);
    is_missing.then(|| Warning {
        path: "spec.provider.name".to_owned(),
        problem: format!(
            "the mesh configuration has no authorizer {provider:?} among its extension providers, so \
             what matches is refused; add it, or correct the name"
        ),
    })
}

/// What a rule about requests does on a port that does not carry HTTP.
const fn meaning_for_bytes(action: Action) -> &'static str {
    match action {
        Action::Allow => "the rule matches nothing",
        Action::Deny => "its criteria about HTTP are left out and it denies more",
        Action::Audit => "its criteria about HTTP are left out and it notes more",
        Action::Custom => "its criteria about HTTP are left out and it asks about more",
    }
}

/// A CUSTOM policy and the ports of a workload that it applies to.
struct AttachedCustom<'a> {
    name: &'a ObjectName,
    provider: &'a str,
    ports: AttachedPorts,
}

impl PolicyIndex {
    /// The CUSTOM policies whose matches are refused because another policy names another provider for
    /// the same port, each with one example.
    pub(super) fn several_providers(&self) -> BTreeMap<&ObjectName, Warning> {
        let mut found = BTreeMap::new();
        let policies: Vec<_> = self.authorizations.iter().filter(is_custom).collect();
        if policies.len() < 2 {
            return found;
        }
        for workload in self.snapshot.workloads() {
            let asking = self.attached_customs(&policies, workload);
            if asking
                .windows(2)
                .all(|two| two[0].provider == two[1].provider)
            {
                continue;
            }
            for one in &asking {
                let contradicts = |other: &&AttachedCustom<'_>| {
                    one.provider != other.provider && one.ports.meet(&other.ports)
                };
                if let Some(other) = asking.iter().find(contradicts) {
                    found
                        .entry(one.name)
                        .or_insert_with(|| contradiction(other, workload));
                }
            }
        }
        found
    }

    fn attached_customs<'a>(
        &self,
        policies: &[&'a ParsedAuthorization],
        workload: &Workload,
    ) -> Vec<AttachedCustom<'a>> {
        let asking = policies.iter().filter_map(|parsed| {
            let policy = parsed.content.as_ref().ok()?;
            Some(AttachedCustom {
                name: &parsed.object.name,
                provider: policy.provider.as_deref()?,
                ports: self.attached_ports(parsed, workload)?,
            })
        });
        asking.collect()
    }
}

fn is_custom(parsed: &&ParsedAuthorization) -> bool {
    parsed.action == Some(Action::Custom)
}

fn contradiction(other: &AttachedCustom<'_>, workload: &Workload) -> Warning {
    Warning {
        path: "spec.provider.name".to_owned(),
        problem: format!(
            "what it matches is refused at the pod {}, because the policy {} names another provider, \
             {:?}: as in Istio, a workload can have one external authorizer; name the same one in both",
            workload.name, other.name, other.provider
        ),
    }
}
