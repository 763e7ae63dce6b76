//! The condition of each policy object, for operators: whether it is enforced, and where it applies.

use std::sync::Arc;

use serde::Serialize;

use super::attachment::Attachment;
use super::authorization::{self, Action, AuthorizationPolicy, Enforcement, ParsedAuthorization};
use super::index::PolicyIndex;
use super::peer_authentication::ParsedAuthentication;
use super::reader::{NotEnforced, Parsed, Warning};
use ambit_model::{ObjectName, PolicyKind, PolicyObject, Workload};

/// Whether a policy object is enforced, and where it applies.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PolicyCondition {
    /// The object's kind.
    pub kind: PolicyKind,
    /// The object's name.
    pub name: ObjectName,
    /// What it applies to.
    pub scope: PolicyScope,
    /// The action of an AuthorizationPolicy, if it can be read.
    pub action: Option<&'static str>,
    /// Whether it is enforced.
    pub state: PolicyState,
    /// Which field cannot be enforced, and warnings.
    pub message: Option<String>,
    /// The number of workloads that it applies to.
    pub workloads: usize,
}

/// What a policy applies to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyScope {
    /// All workloads, because it is in the root namespace.
    Mesh,
    /// The workloads of its own namespace.
    Namespace,
    /// The workloads that its selector selects.
    Selected,
    /// The pods behind the Services that it refers to.
    Services,
}

/// Whether a policy is enforced.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum PolicyState {
    /// It is enforced in full.
    Enforced,
    /// It decides nothing; its verdicts are noted.
    DryRun,
    /// It is not enforced. The message says which field is the cause, and what follows.
    NotEnforced,
    /// By Istio's rules it applies to nothing.
    Ignored,
}

impl PolicyIndex {
    /// The condition of each policy object.
    pub fn conditions(&self) -> Vec<PolicyCondition> {
        let authorizations = self.authorizations.iter();
        let authentications = self.authentications.iter();
        let contradictions = self.several_providers();
        authorizations
            .map(|parsed| {
                let contradiction = contradictions.get(&parsed.object.name);
                self.describe_authorization(parsed, contradiction)
            })
            .chain(authentications.map(|parsed| self.describe_authentication(parsed)))
            .chain(
                self.token_rules
                    .iter()
                    .map(|parsed| self.describe_attached(parsed)),
            )
            .chain(
                self.of_other_revisions
                    .iter()
                    .map(|object| self.describe_other_revision(object)),
            )
            .collect()
    }

    /// An object for another revision may have been meant to restrict, so it is reported like one that
    /// cannot be enforced.
    fn describe_other_revision(&self, object: &Arc<PolicyObject>) -> PolicyCondition {
        let is_authorization = object.kind == PolicyKind::AuthorizationPolicy;
        let action = || authorization::parse(object, self.snapshot.trust_bundle()).action;
        PolicyCondition {
            scope: self.scope_of_all(object),
            action: is_authorization.then(action).flatten().map(Action::as_str),
            state: PolicyState::NotEnforced,
            message: Some(self.other_revision(object).to_string()),
            ..condition(object, None, 0)
        }
    }

    fn describe_authorization(
        &self,
        parsed: &ParsedAuthorization,
        contradiction: Option<&Warning>,
    ) -> PolicyCondition {
        let mut condition = self.describe_attached(parsed);
        if let Some(contradiction) = contradiction {
            let told = condition.message.into_iter();
            let all: Vec<String> = told.chain([contradiction.to_string()]).collect();
            condition.message = Some(all.join("; "));
        }
        condition.action = parsed.action.map(Action::as_str);
        let is_dry_run =
            |policy: &Arc<AuthorizationPolicy>| policy.enforcement == Enforcement::DryRun;
        if parsed.content.as_ref().is_ok_and(is_dry_run) {
            condition.state = PolicyState::DryRun;
        }
        condition
    }

    fn describe_attached<C>(&self, parsed: &Parsed<Attachment, C>) -> PolicyCondition {
        let workloads = self.count(|workload| self.attached_ports(parsed, workload).is_some());
        let error = parsed.content.as_ref().err();
        let mut condition = condition(&parsed.object, error, workloads);
        condition.scope = match &parsed.selector {
            Attachment::Everything => self.scope_of_all(&parsed.object),
            Attachment::Labels(_) => PolicyScope::Selected,
            Attachment::Services(_) => PolicyScope::Services,
        };
        let follows = || consequence(parsed.action, parsed.enforcement);
        let error = error.map(|error| format!("{error}; {}", follows()));
        let warnings = parsed.warnings.iter().map(ToString::to_string);
        let mut remarks: Vec<String> = error.into_iter().chain(warnings).collect();
        if let Attachment::Services(services) = &parsed.selector {
            let is_missing = |name: &&String| !self.has_service(&parsed.object.name, name);
            let missing = services.iter().filter(is_missing);
            remarks
                .extend(missing.map(|name| format!("there is no Service {name} in its namespace")));
            if services.is_empty() {
                condition.state = PolicyState::NotEnforced;
            }
        }
        condition.message = (!remarks.is_empty()).then(|| remarks.join("; "));
        condition
    }

    fn describe_authentication(&self, parsed: &ParsedAuthentication) -> PolicyCondition {
        let workloads = self.count(|workload| self.level(parsed, workload).is_some());
        let error = parsed.content.as_ref().err();
        let mut condition = condition(&parsed.object, error, workloads);
        let selects = !parsed.selector.is_empty();
        condition.scope = match selects {
            true => PolicyScope::Selected,
            false => self.scope_of_all(&parsed.object),
        };
        if self.is_root(&parsed.object) && selects {
            condition.state = PolicyState::Ignored;
            condition.message =
                Some("a selector has no effect in the root namespace; move the object".into());
        } else if let Some(error) = error {
            let follows = consequence(None, parsed.enforcement);
            condition.message = Some(format!("{error}; {follows}"));
        } else if !parsed.warnings.is_empty() {
            let warnings: Vec<_> = parsed.warnings.iter().map(ToString::to_string).collect();
            condition.message = Some(warnings.join("; "));
        }
        condition
    }

    fn scope_of_all(&self, object: &PolicyObject) -> PolicyScope {
        match self.is_root(object) {
            true => PolicyScope::Mesh,
            false => PolicyScope::Namespace,
        }
    }

    fn count(&self, applies: impl Fn(&Workload) -> bool) -> usize {
        let workloads = self.snapshot.workloads().iter();
        workloads.filter(|workload| applies(workload)).count()
    }
}

/// What follows if an object cannot be enforced.
pub(super) fn consequence(action: Option<Action>, enforcement: Enforcement) -> &'static str {
    match (action, enforcement) {
        (_, Enforcement::DryRun) => "until this is fixed, its dry run notes nothing",
        (Some(Action::Allow), _) => "until this is fixed, the policy allows nothing",
        (Some(Action::Audit), _) => "until this is fixed, it audits nothing",
        (Some(Action::Deny | Action::Custom) | None, _) => {
            "until this is fixed, the workloads that it selects refuse all connections"
        }
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
        message: None,
        workloads,
    }
}
