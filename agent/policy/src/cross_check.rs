//! What policies come to beside the objects that they depend on: Services, and the mesh
//! configuration. Each check speaks only where those objects are known.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::attachment::Attachment;
use super::authorization::{Action, AuthorizationPolicy, Criterion, Rule};
use super::findings::{Finding, warning};
use super::index::{ParsedAuthorization, PolicyIndex};
use super::reader::Warning;
use ambit_model::Workload;

impl PolicyIndex {
    /// Policies that cannot come to what they say, for what other objects say. `providers` are the
    /// external authorizers of the mesh configuration, `None` where that is not known.
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

    /// Services of the policy's namespace that it refers to and that are not there, where others
    /// are.
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
                    "there is no Service {name} in the namespace {namespace}, so that the policy \
                     applies to none of its pods; mend the name"
                ),
            })
            .collect()
    }

    /// Rules for requests on ports that no Service declares as HTTP.
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
                        "it depends on HTTP, and no Service declares {what} as HTTP (appProtocol, \
                         or the port's name): there {}; declare it",
                        of_bytes(policy.action)
                    ),
                })
            })
            .collect()
    }

    /// Whether Services say what the workload's ports carry.
    fn has_ports(&self, workload: &Workload) -> bool {
        let mut services = self.snapshot.services().iter();
        services.any(|service| service.selects(workload))
            || self.snapshot.service_ports(workload).next().is_some()
    }

    /// A port of a workload that a rule is about, and that carries no HTTP.
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
            "the mesh configuration has no extension provider {provider:?} that authorizes: what \
             matches is refused; add it, or mend the name"
        ),
    })
}

/// What a rule for requests means for bytes that are none.
const fn of_bytes(action: Action) -> &'static str {
    match action {
        Action::Allow => "the rule allows nobody",
        Action::Deny => "it denies whatever else it says",
        Action::Audit => "it notes every connection, whatever the request",
        Action::Custom => "it asks about every connection, whatever the request",
    }
}
