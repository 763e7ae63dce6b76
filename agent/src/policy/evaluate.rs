//! The reference evaluator: what the policies of a workload say of a connection.

use ambit_common::Reason;

use super::authorization::{Action, Authorization};
use super::decision::{Attributes, Decider, Decision, Denial, Permit};
use super::workload_policies::WorkloadPolicies;
use crate::model::{ObjectName, PolicyKind};

impl WorkloadPolicies {
    /// Decides a connection: what cannot be enforced refuses; then PeerAuthentication, DENY, ALLOW.
    pub fn evaluate(&self, connection: &Attributes) -> Decision {
        if let Some(decider) = self.not_enforced.first() {
            return deny(Reason::PolicyNotEnforceable, Some(decider.clone()));
        }
        let strict = self.strictness.of(connection.destination.port());
        if let (None, Some(decider)) = (&connection.identity, strict) {
            return deny(Reason::DeniedByPolicy, Some(decider.clone()));
        }
        if let Some(decider) = self.matching(Action::Deny, connection) {
            return deny(Reason::DeniedByPolicy, Some(decider));
        }
        if !self.has_allow() {
            return Decision::Allow(Permit::new(None));
        }
        match self.matching(Action::Allow, connection) {
            Some(decider) => Decision::Allow(Permit::new(Some(decider))),
            None => deny(Reason::NoAllowMatched, self.first_allow()),
        }
    }

    /// Whether an ALLOW policy applies, so that what none allows is refused.
    pub(super) fn has_allow(&self) -> bool {
        self.policies
            .iter()
            .any(|(_, policy)| policy.action == Action::Allow)
    }

    /// The first ALLOW policy as a whole: none of its rules matched, and its presence is why the
    /// connection is refused.
    fn first_allow(&self) -> Option<Decider> {
        let allow = self
            .policies
            .iter()
            .find(|(_, policy)| policy.action == Action::Allow);
        allow.map(|(name, _)| Decider {
            kind: PolicyKind::AuthorizationPolicy,
            name: name.clone(),
            rule: None,
        })
    }

    /// The first rule of an action that matches.
    fn matching(&self, action: Action, connection: &Attributes) -> Option<Decider> {
        let policies = self
            .policies
            .iter()
            .filter(|(_, policy)| policy.action == action);
        policies
            .into_iter()
            .find_map(|(name, policy)| matching_rule(name, policy, connection))
    }
}

fn matching_rule(
    name: &ObjectName,
    policy: &Authorization,
    connection: &Attributes,
) -> Option<Decider> {
    let rule = policy
        .rules
        .iter()
        .position(|rule| rule.matches(connection))?;
    Some(Decider {
        kind: PolicyKind::AuthorizationPolicy,
        name: name.clone(),
        rule: Some(rule),
    })
}

fn deny(reason: Reason, decider: Option<Decider>) -> Decision {
    Decision::Deny(Denial { reason, decider })
}
