//! Which policies apply to which workload.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::authorization::{self, Authorization};
use super::decision::Decider;
use super::peer_authentication::{self, PeerAuthentication, Strictness};
use super::reader::NotEnforced;
use super::workload_policies::WorkloadPolicies;
use crate::model::{ObjectName, PolicyKind, PolicyObject, Snapshot, Workload};

/// The parsed policies of a mesh.
#[derive(Debug)]
pub struct PolicyIndex {
    root: Arc<str>,
    authorizations: Vec<ParsedAuthorization>,
    authentications: Vec<ParsedAuthentication>,
    conditions: Vec<PolicyCondition>,
}

/// Labels that a workload has to have.
type Labels = Vec<(String, String)>;

/// An AuthorizationPolicy; without a selector it applies to all of its scope.
type ParsedAuthorization = Parsed<Option<Labels>, Arc<Authorization>>;

/// A PeerAuthentication; without labels it applies to all of its scope.
type ParsedAuthentication = Parsed<Labels, PeerAuthentication>;

#[derive(Debug)]
struct Parsed<S, C> {
    object: PolicyObject,
    selector: S,
    content: Result<C, NotEnforced>,
}

/// What became of a policy object, for the operator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PolicyCondition {
    /// The object's kind.
    pub kind: PolicyKind,
    /// The object's name.
    pub name: ObjectName,
    /// What it applies to.
    pub scope: PolicyScope,
    /// An AuthorizationPolicy's action, where it is enforced.
    pub action: Option<&'static str>,
    /// Whether it is enforced.
    pub state: PolicyState,
    /// Which field is not, or what else there is to know.
    pub message: Option<String>,
    /// How many workloads it applies to.
    pub workloads: usize,
}

/// What a policy applies to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyScope {
    /// Every workload: it is in the root namespace.
    Mesh,
    /// The workloads of its namespace.
    Namespace,
    /// Those that its selector selects.
    Selected,
}

/// Whether a policy is enforced.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum PolicyState {
    /// It is, in full.
    Enforced,
    /// It is not, and the workloads that it selects refuse all connections.
    NotEnforced,
    /// It applies to nothing, by Istio's rules.
    Ignored,
}

impl PolicyIndex {
    /// Parses the policies of a snapshot.
    pub fn build(snapshot: &Snapshot) -> Self {
        let mut index = Self {
            root: snapshot.root_namespace().into(),
            authorizations: Vec::new(),
            authentications: Vec::new(),
            conditions: Vec::new(),
        };
        for object in snapshot.policies() {
            match object.kind {
                PolicyKind::AuthorizationPolicy => {
                    let parsed = authorization::parse(object, snapshot.trust_domain());
                    index.authorizations.push(Parsed {
                        object: object.clone(),
                        selector: parsed.selector,
                        content: parsed.rules.map(Arc::new),
                    });
                }
                PolicyKind::PeerAuthentication => {
                    let parsed = peer_authentication::parse(object);
                    index.authentications.push(Parsed {
                        object: object.clone(),
                        selector: parsed.selector,
                        content: parsed.content,
                    });
                }
            }
        }
        index
            .authorizations
            .sort_by(|a, b| a.object.name.cmp(&b.object.name));
        index
            .authentications
            .sort_by(|a, b| age(&a.object).cmp(&age(&b.object)));
        index.conditions = index.describe(snapshot);
        index
    }

    /// Everything that decides who may reach a workload.
    pub fn for_workload(&self, workload: &Workload) -> Arc<WorkloadPolicies> {
        let mut resolved = WorkloadPolicies::default();
        for parsed in self
            .authorizations
            .iter()
            .filter(|parsed| self.authorizes(parsed, workload))
        {
            match &parsed.content {
                Ok(policy) => {
                    resolved
                        .policies
                        .push((parsed.object.name.clone(), Arc::clone(policy)));
                }
                Err(_) => resolved.not_enforced.push(whole(&parsed.object)),
            }
        }
        self.resolve_strictness(workload, &mut resolved);
        Arc::new(resolved)
    }

    /// What became of each policy object.
    pub fn conditions(&self) -> &[PolicyCondition] {
        &self.conditions
    }

    fn authorizes(&self, parsed: &ParsedAuthorization, workload: &Workload) -> bool {
        let namespace = &parsed.object.name.namespace;
        (*namespace == self.root || *namespace == workload.name.namespace)
            && parsed
                .selector
                .as_ref()
                .is_none_or(|labels| has_labels(workload, labels))
    }

    /// Mesh, namespace, workload: the oldest object of each level, the later level over the former.
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

    /// At which level a PeerAuthentication applies to a workload. One with a selector in the root
    /// namespace applies nowhere.
    fn level(&self, parsed: &ParsedAuthentication, workload: &Workload) -> Option<Level> {
        let namespace = &parsed.object.name.namespace;
        match (*namespace == self.root, parsed.selector.is_empty()) {
            (true, true) => Some(Level::Mesh),
            (true, false) => None,
            (false, _) if *namespace != workload.name.namespace => None,
            (false, true) => Some(Level::Namespace),
            (false, false) if has_labels(workload, &parsed.selector) => Some(Level::Workload),
            (false, false) => None,
        }
    }

    fn scope(&self, object: &PolicyObject, selects: bool) -> PolicyScope {
        match (selects, object.name.namespace == self.root) {
            (true, _) => PolicyScope::Selected,
            (false, true) => PolicyScope::Mesh,
            (false, false) => PolicyScope::Namespace,
        }
    }

    fn describe(&self, snapshot: &Snapshot) -> Vec<PolicyCondition> {
        let count = |applies: &dyn Fn(&Workload) -> bool| {
            snapshot
                .workloads()
                .iter()
                .filter(|workload| applies(workload))
                .count()
        };
        let authorizations = self.authorizations.iter().map(|parsed| {
            let workloads = count(&|workload| self.authorizes(parsed, workload));
            PolicyCondition {
                scope: self.scope(&parsed.object, parsed.selector.is_some()),
                action: parsed
                    .content
                    .as_ref()
                    .ok()
                    .map(|policy| policy.action.as_str()),
                ..condition(&parsed.object, parsed.content.as_ref().err(), workloads)
            }
        });
        let authentications = self.authentications.iter().map(|parsed| {
            let workloads = count(&|workload| self.level(parsed, workload).is_some());
            let mut condition = condition(&parsed.object, parsed.content.as_ref().err(), workloads);
            condition.scope = self.scope(&parsed.object, !parsed.selector.is_empty());
            if *parsed.object.name.namespace == *self.root && !parsed.selector.is_empty() {
                condition.state = PolicyState::Ignored;
                condition.message =
                    Some("a selector has no effect in the root namespace; move the object".into());
            } else if parsed
                .content
                .as_ref()
                .is_ok_and(|content| content.disables)
            {
                condition.message = Some("DISABLE is taken for PERMISSIVE".into());
            }
            condition
        });
        authorizations.chain(authentications).collect()
    }
}

/// At which level a PeerAuthentication applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Level {
    Mesh,
    Namespace,
    Workload,
}

/// Oldest first; then by name, then by namespace. An object without a timestamp counts as newest.
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

fn condition(
    object: &PolicyObject,
    error: Option<&NotEnforced>,
    workloads: usize,
) -> PolicyCondition {
    PolicyCondition {
        kind: object.kind,
        name: object.name.clone(),
        scope: PolicyScope::Namespace,
        action: None,
        state: error.map_or(PolicyState::Enforced, |_| PolicyState::NotEnforced),
        message: error.map(ToString::to_string),
        workloads,
    }
}
