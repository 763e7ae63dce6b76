//! The reference evaluator: what the policies of a workload say about a connection, and about a
//! request.
//!
//! The order is: objects that cannot be enforced; then PeerAuthentication, CUSTOM, DENY, ALLOW.

use std::collections::BTreeSet;
use std::sync::Arc;

use ambit_common::Reason;

use super::authorization::{Action, Facts, Knowledge};
use super::decision::{
    ConnectionAttributes, ConnectionVerdict, Decider, Denial, Permit, RequestPermit,
};
use super::request::RequestAttributes;
use super::workload_policies::{Attached, WorkloadPolicies};

/// The providers (external authorizers) that allowed a connection or a request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Approvals(BTreeSet<Arc<str>>);

/// A provider that has to allow a connection or a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Consultation {
    /// `spec.provider.name`: an extension provider of the mesh configuration.
    pub provider: Arc<str>,
    /// The CUSTOM rule that matched.
    pub decider: Decider,
}

impl Approvals {
    /// Records that a provider allowed it.
    pub fn add(&mut self, provider: Arc<str>) {
        self.0.insert(provider);
    }
}

impl WorkloadPolicies {
    /// Judges a connection by what is known before it carries a byte. The kernel's tables are compiled
    /// from the same policies and give the same verdict.
    pub fn judge_connection(&self, connection: &ConnectionAttributes) -> ConnectionVerdict {
        if let Some(denial) = self.unconditional_denial(connection) {
            return ConnectionVerdict::Deny(denial);
        }
        let port = connection.destination.port();
        let knowledge = match self.carries_http(port) {
            true => Knowledge::Nothing,
            false => Knowledge::Opaque,
        };
        let (denied, denier) = self.strongest(Action::Deny, connection, knowledge);
        let (allowed, allower) = self.strongest(Action::Allow, connection, knowledge);
        let (custom, _) = self.strongest(Action::Custom, connection, knowledge);
        if denied == Ternary::True {
            return ConnectionVerdict::Deny(denial(Reason::DeniedByPolicy, denier));
        }
        let needs_allow = self.first_allow(port).is_some();
        if needs_allow && allowed == Ternary::False {
            return ConnectionVerdict::Deny(self.no_rule_allowed(port));
        }
        let is_decided = denied == Ternary::False
            && custom == Ternary::False
            && (!needs_allow || allowed == Ternary::True)
            && !(self.carries_http(port) && self.verifies_tokens(port))
            && !self.is_worth_noting(connection, knowledge);
        match is_decided {
            true => ConnectionVerdict::Allow(Permit::new(allower)),
            false => ConnectionVerdict::Ask,
        }
    }

    /// Judges a connection whose bytes are not HTTP.
    ///
    /// # Errors
    /// The denial.
    pub fn judge_opaque(
        &self,
        connection: &ConnectionAttributes,
        approvals: &Approvals,
    ) -> Result<Permit, Denial> {
        self.decide(connection, Knowledge::Opaque, approvals)
            .map(Permit::new)
    }

    /// Judges a request.
    ///
    /// # Errors
    /// The denial.
    pub fn judge_request(
        &self,
        connection: &ConnectionAttributes,
        request: &RequestAttributes,
        approvals: &Approvals,
    ) -> Result<RequestPermit, Denial> {
        self.decide(connection, Knowledge::Request(request), approvals)
            .map(RequestPermit::new)
    }

    /// Whether the tokens of a port's requests are verified.
    pub(super) fn verifies_tokens(&self, port: u16) -> bool {
        self.token_rules.iter().any(|one| one.ports.include(port))
    }

    /// Returns the authorizers to consult before a request is judged.
    pub fn consultations_on_request(
        &self,
        connection: &ConnectionAttributes,
        request: &RequestAttributes,
    ) -> Vec<Consultation> {
        self.consultations(connection, Knowledge::Request(request))
    }

    /// Returns the authorizers to consult before a connection that is not HTTP is judged.
    pub fn consultations_on_opaque(&self, connection: &ConnectionAttributes) -> Vec<Consultation> {
        self.consultations(connection, Knowledge::Opaque)
    }

    /// Returns the authorizers to consult: the providers of the CUSTOM policies that match. Empty if
    /// the policies of the port name different providers, because what they match is refused then.
    pub(super) fn consultations(
        &self,
        connection: &ConnectionAttributes,
        knowledge: Knowledge<'_>,
    ) -> Vec<Consultation> {
        let mut all: Vec<Consultation> = Vec::new();
        let port = connection.destination.port();
        if self.names_several_providers(port) {
            return all;
        }
        for attached in self.enforced(Action::Custom, port) {
            let Some(provider) = &attached.policy.provider else {
                continue;
            };
            let is_new = !all.iter().any(|known| known.provider == *provider);
            if let (true, Some(rule)) = (is_new, attached.matching_rule(connection, knowledge)) {
                all.push(Consultation {
                    provider: Arc::clone(provider),
                    decider: attached.decider(Some(rule)),
                });
            }
        }
        all.sort_by(|a, b| a.provider.cmp(&b.provider));
        all
    }

    /// Decides a connection or request about which everything is known. Returns the rule that allowed
    /// it; `None` if no ALLOW policy applies.
    fn decide(
        &self,
        connection: &ConnectionAttributes,
        knowledge: Knowledge<'_>,
        approvals: &Approvals,
    ) -> Result<Option<Decider>, Denial> {
        if let Some(denial) = self.unconditional_denial(connection) {
            return Err(denial);
        }
        let port = connection.destination.port();
        if let Some(decider) = self.not_approved(connection, knowledge, approvals) {
            return Err(denial(Reason::DeniedByPolicy, Some(decider)));
        }
        if let Some(decider) = self.matching(Action::Deny, connection, knowledge) {
            return Err(denial(Reason::DeniedByPolicy, Some(decider)));
        }
        if self.first_allow(port).is_none() {
            return Ok(None);
        }
        match self.matching(Action::Allow, connection, knowledge) {
            Some(decider) => Ok(Some(decider)),
            None => Err(self.no_rule_allowed(port)),
        }
    }

    /// The denial that does not depend on rules: an object that cannot be enforced, or STRICT.
    fn unconditional_denial(&self, connection: &ConnectionAttributes) -> Option<Denial> {
        if let Some(decider) = self.not_enforced.first() {
            return Some(denial(Reason::PolicyNotEnforceable, Some(decider.clone())));
        }
        let strict = self.strictness.of(connection.destination.port());
        match (&connection.identity, strict) {
            (None, Some(decider)) => Some(denial(Reason::DeniedByPolicy, Some(decider.clone()))),
            _ => None,
        }
    }

    /// The first CUSTOM rule that matches and whose provider has not allowed it. If the policies of the
    /// port name several providers, no approval counts, not even one that was given before.
    fn not_approved(
        &self,
        connection: &ConnectionAttributes,
        knowledge: Knowledge<'_>,
        approvals: &Approvals,
    ) -> Option<Decider> {
        let port = connection.destination.port();
        let policies = self.enforced(Action::Custom, port);
        let can_be_approved = !self.names_several_providers(port);
        let is_approved = |attached: &&Attached| {
            let provider = attached.policy.provider.as_ref();
            can_be_approved && provider.is_some_and(|provider| approvals.0.contains(provider))
        };
        policies
            .filter(|attached| !is_approved(attached))
            .find_map(|attached| attached.matching_decider(connection, knowledge))
    }

    /// The first matching rule of the policies with an action.
    fn matching(
        &self,
        action: Action,
        connection: &ConnectionAttributes,
        knowledge: Knowledge<'_>,
    ) -> Option<Decider> {
        self.enforced(action, connection.destination.port())
            .find_map(|attached| attached.matching_decider(connection, knowledge))
    }

    /// Whether rules of the policies with an action match, and the first one that does.
    pub(super) fn strongest(
        &self,
        action: Action,
        connection: &ConnectionAttributes,
        knowledge: Knowledge<'_>,
    ) -> (Ternary, Option<Decider>) {
        let mut strongest = Ternary::False;
        for attached in self.enforced(action, connection.destination.port()) {
            let (strength, rule) = attached.strongest(connection, knowledge);
            if rule.is_some() {
                return (strength, Some(attached.decider(rule)));
            }
            strongest = strongest.max(strength);
        }
        (strongest, None)
    }

    /// The first ALLOW policy that applies to a port. If there is one, what no ALLOW rule matches is
    /// refused.
    pub(super) fn first_allow(&self, port: u16) -> Option<&Attached> {
        self.enforced(Action::Allow, port).next()
    }

    fn no_rule_allowed(&self, port: u16) -> Denial {
        let first = self.first_allow(port);
        denial(
            Reason::NoAllowMatched,
            first.map(|attached| attached.decider(None)),
        )
    }
}

impl Attached {
    /// Whether one of its rules matches.
    pub(super) fn matches(
        &self,
        connection: &ConnectionAttributes,
        knowledge: Knowledge<'_>,
    ) -> Ternary {
        self.strongest(connection, knowledge).0
    }

    /// The index of its first rule that matches.
    pub(super) fn matching_rule(
        &self,
        connection: &ConnectionAttributes,
        knowledge: Knowledge<'_>,
    ) -> Option<usize> {
        self.strongest(connection, knowledge).1
    }

    /// Whether one of its rules matches, and the index of the first one that does.
    fn strongest(
        &self,
        connection: &ConnectionAttributes,
        knowledge: Knowledge<'_>,
    ) -> (Ternary, Option<usize>) {
        let facts = Facts {
            connection,
            knowledge,
            action: self.policy.action,
        };
        let mut strongest = Ternary::False;
        for (number, rule) in self.policy.rules.iter().enumerate() {
            match rule.matches(&facts) {
                Ternary::True => return (Ternary::True, Some(number)),
                weaker => strongest = strongest.max(weaker),
            }
        }
        (strongest, None)
    }

    fn matching_decider(
        &self,
        connection: &ConnectionAttributes,
        knowledge: Knowledge<'_>,
    ) -> Option<Decider> {
        let rule = self.matching_rule(connection, knowledge)?;
        Some(self.decider(Some(rule)))
    }
}

fn denial(reason: Reason, decider: Option<Decider>) -> Denial {
    Denial { reason, decider }
}

/// Whether something holds, in Kleene's logic of three values: before a request has been read, some
/// criteria are unknown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Ternary {
    False,
    /// It depends on something that is not known yet.
    Unknown,
    True,
}

impl Ternary {
    /// Whether all of the values hold.
    pub(super) fn all(values: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Self::True;
        for value in values {
            all = all.min(value);
            if all == Self::False {
                break;
            }
        }
        all
    }

    /// Whether one of the values holds.
    pub(super) fn any(values: impl IntoIterator<Item = Self>) -> Self {
        let mut any = Self::False;
        for value in values {
            any = any.max(value);
            if any == Self::True {
                break;
            }
        }
        any
    }
}

impl From<bool> for Ternary {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

#[cfg(test)]
mod tests {
    use super::Ternary::{self, False, True, Unknown};

    #[test]
    fn an_unknown_value_matters_only_if_the_others_do_not_decide() {
        assert_eq!(Ternary::all([]), True);
        assert_eq!(Ternary::all([True, Unknown]), Unknown);
        assert_eq!(Ternary::all([False, Unknown]), False);
        assert_eq!(Ternary::any([]), False);
        assert_eq!(Ternary::any([True, Unknown]), True);
        assert_eq!(Ternary::any([False, Unknown]), Unknown);
    }
}
