//! The policies of a mesh, and which of them apply to which workload.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::attachment::Attachment;
use super::authorization::{self, Action, AuthorizationPolicy, Enforcement, ParsedAuthorization};
use super::decision::Decider;
use super::peer_authentication::{self, ParsedAuthentication, Strictness};
use super::reader::Parsed;
use super::request_authentication::{self, JwtRule, ParsedTokenRules};
use super::workload_policies::{Attached, AttachedPorts, AttachedTokenRules, WorkloadPolicies};
use ambit_model::{ObjectName, PolicyKind, PolicyObject, Service, Snapshot, Workload};

/// The policies of a mesh.
#[derive(Debug)]
pub struct PolicyIndex {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) authorizations: Vec<ParsedAuthorization>,
    pub(super) authentications: Vec<ParsedAuthentication>,
    pub(super) token_rules: Vec<ParsedTokenRules>,
    /// Objects for other revisions of the control plane. They do not apply here.
    pub(super) of_other_revisions: Vec<Arc<PolicyObject>>,
}

impl PolicyIndex {
    /// Reads the policies of a snapshot.
    pub fn build(snapshot: &Arc<Snapshot>) -> Self {
        let mut index = Self {
            snapshot: Arc::clone(snapshot),
            authorizations: Vec::new(),
            authentications: Vec::new(),
            token_rules: Vec::new(),
            of_other_revisions: Vec::new(),
        };
        for object in snapshot.policies() {
            if !snapshot.revision().takes(object.revision.as_deref()) {
                index.of_other_revisions.push(Arc::clone(object));
                continue;
            }
            match object.kind {
                PolicyKind::AuthorizationPolicy => {
                    let parsed = authorization::parse(object, snapshot.trust_bundle());
                    index.authorizations.push(parsed);
                }
                PolicyKind::RequestAuthentication => {
                    index
                        .token_rules
                        .push(request_authentication::parse(object));
                }
                PolicyKind::PeerAuthentication => {
                    index
                        .authentications
                        .push(peer_authentication::parse(object));
                }
            }
        }
        index
            .authorizations
            .sort_by(|a, b| a.object.name.cmp(&b.object.name));
        index
            .authentications
            .sort_by(|a, b| age(&a.object).cmp(&age(&b.object)));
        index
            .token_rules
            .sort_by(|a, b| a.object.name.cmp(&b.object.name));
        index
    }

    /// The policies that apply to a workload.
    pub fn for_workload(&self, workload: &Workload) -> Arc<WorkloadPolicies> {
        let mut resolved = WorkloadPolicies::default();
        for parsed in &self.authorizations {
            let Some(ports) = self.attached_ports(parsed, workload) else {
                continue;
            };
            let policy = match (&parsed.content, parsed.action) {
                (Ok(policy), _) => Arc::clone(policy),
                (Err(_), _) if parsed.enforcement == Enforcement::DryRun => continue,
                (Err(_), Some(Action::Allow)) => Arc::new(allows_nothing()),
                (Err(_), Some(Action::Audit)) => continue,
                (Err(_), Some(Action::Deny | Action::Custom) | None) => {
                    resolved.not_enforced.push(whole(&parsed.object));
                    continue;
                }
            };
            resolved.policies.push(Attached {
                name: parsed.object.name.clone(),
                ports,
                policy,
            });
        }
        self.resolve_strictness(workload, &mut resolved);
        self.resolve_token_rules(workload, &mut resolved);
        // Workloads share a policy set unless they differ in something that a policy depends on.
        if resolved.depends_on_requests() {
            resolved.http_ports = self.snapshot.http_ports(workload);
        }
        Arc::new(resolved)
    }

    /// The rules for tokens of all workloads, each with the namespace of its object. The caller needs
    /// their keys.
    pub fn jwt_rules(&self) -> impl Iterator<Item = (&Arc<str>, &JwtRule)> {
        self.token_rules.iter().flat_map(|parsed| {
            let namespace = &parsed.object.name.namespace;
            let rules = parsed.content.iter().flat_map(|content| &content.rules);
            rules.map(move |rule| (namespace, rule))
        })
    }

    /// Combines all RequestAuthentications that apply. If one cannot be enforced, everything is refused.
    fn resolve_token_rules(&self, workload: &Workload, resolved: &mut WorkloadPolicies) {
        for parsed in &self.token_rules {
            let Some(ports) = self.attached_ports(parsed, workload) else {
                continue;
            };
            match &parsed.content {
                Ok(content) => resolved.token_rules.push(AttachedTokenRules {
                    ports,
                    authentication: Arc::clone(content),
                }),
                Err(_) => resolved.not_enforced.push(whole(&parsed.object)),
            }
        }
    }

    /// The ports of a workload that a policy applies to; `None` if it does not apply to the workload.
    pub(super) fn attached_ports<C>(
        &self,
        parsed: &Parsed<Attachment, C>,
        workload: &Workload,
    ) -> Option<AttachedPorts> {
        let namespace = &parsed.object.name.namespace;
        let is_own = *namespace == workload.name.namespace;
        match &parsed.selector {
            Attachment::Everything => {
                (is_own || self.is_root(&parsed.object)).then_some(AttachedPorts::All)
            }
            Attachment::Labels(labels) => {
                let applies =
                    (is_own || self.is_root(&parsed.object)) && has_labels(workload, labels);
                applies.then_some(AttachedPorts::All)
            }
            Attachment::Services(names) => {
                let is_referred = |service: &Service| {
                    service.name.namespace == *namespace
                        && names.iter().any(|name| *name == *service.name.name)
                };
                let ports: BTreeSet<u16> = self
                    .snapshot
                    .service_ports(workload)
                    .filter(|(service, _, _)| is_referred(service))
                    .map(|(_, _, port)| port)
                    .collect();
                (!ports.is_empty()).then_some(AttachedPorts::These(ports))
            }
        }
    }

    /// Applies the oldest PeerAuthentication of each level. Namespace overrides mesh, and workload
    /// overrides namespace.
    fn resolve_strictness(&self, workload: &Workload, resolved: &mut WorkloadPolicies) {
        let mut strictness = Strictness::default();
        for level in [Level::Mesh, Level::Namespace, Level::Workload] {
            let of_level = |parsed: &&Parsed<_, _>| self.level(parsed, workload) == Some(level);
            let Some(parsed) = self.authentications.iter().find(of_level) else {
                continue;
            };
            match &parsed.content {
                Ok(content) => strictness.apply(&parsed.object, content),
                Err(_) => resolved.not_enforced.push(whole(&parsed.object)),
            }
        }
        resolved.strictness = strictness;
    }

    /// The level at which a PeerAuthentication applies to a workload; `None` if it does not. An object
    /// with a selector in the root namespace applies to nothing.
    pub(super) fn level(
        &self,
        parsed: &ParsedAuthentication,
        workload: &Workload,
    ) -> Option<Level> {
        let namespace = &parsed.object.name.namespace;
        match (self.is_root(&parsed.object), parsed.selector.is_empty()) {
            (true, true) => Some(Level::Mesh),
            (true, false) => None,
            (false, _) if *namespace != workload.name.namespace => None,
            (false, true) => Some(Level::Namespace),
            (false, false) if has_labels(workload, &parsed.selector) => Some(Level::Workload),
            (false, false) => None,
        }
    }

    /// Whether an object is in the root namespace, and so applies to the whole mesh.
    pub(super) fn is_root(&self, object: &PolicyObject) -> bool {
        *object.name.namespace == *self.snapshot.root_namespace()
    }

    /// Whether there is a Service of this name in a policy's namespace.
    pub(super) fn has_service(&self, policy: &ObjectName, name: &str) -> bool {
        self.service(policy, name).is_some()
    }

    fn service(&self, policy: &ObjectName, name: &str) -> Option<&Service> {
        let is_meant = |service: &&Service| {
            service.name.namespace == policy.namespace && *service.name.name == *name
        };
        self.snapshot.services().iter().find(is_meant)
    }
}

/// The level at which a PeerAuthentication applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Level {
    Mesh,
    Namespace,
    Workload,
}

/// The meaning of an ALLOW policy that cannot be enforced: it allows nothing.
fn allows_nothing() -> AuthorizationPolicy {
    AuthorizationPolicy {
        action: Action::Allow,
        enforcement: Enforcement::Enforced,
        provider: None,
        rules: Vec::new(),
    }
}

/// Orders objects by age, oldest first, then by name and namespace. An object without a timestamp
/// counts as the newest.
fn age(object: &PolicyObject) -> (bool, Option<&str>, &str, &str) {
    let created = object.created.as_deref();
    (
        created.is_none(),
        created,
        &object.name.name,
        &object.name.namespace,
    )
}

fn has_labels(workload: &Workload, labels: &[(String, String)]) -> bool {
    let own: &BTreeMap<String, String> = &workload.labels;
    labels
        .iter()
        .all(|(key, value)| own.get(key) == Some(value))
}

fn whole(object: &PolicyObject) -> Decider {
    Decider {
        kind: object.kind,
        name: object.name.clone(),
        rule: None,
    }
}
