//! AuthorizationPolicy (`security.istio.io` v1): its rules, and how they match.

mod criterion;
mod describe;
mod read;
mod values;
mod when;

pub(super) use criterion::{Criterion, Facts, Knowledge};
pub(super) use describe::Clause;
pub(super) use read::{ParsedAuthorization, parse};

use std::iter;
use std::sync::Arc;

use super::evaluate::Ternary;

/// What a policy does if it matches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Action {
    /// It allows, unless a DENY policy matches.
    Allow,
    /// It refuses.
    Deny,
    /// It notes the match and decides nothing.
    Audit,
    /// An external authorizer decides.
    Custom,
}

impl Action {
    /// The value of `spec.action`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Audit => "AUDIT",
            Self::Custom => "CUSTOM",
        }
    }
}

/// Whether a policy decides.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Enforcement {
    /// It decides.
    Enforced,
    /// Its verdicts are only noted (annotation `istio.io/dry-run`).
    DryRun,
}

/// What an AuthorizationPolicy says.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct AuthorizationPolicy {
    pub(super) action: Action,
    pub(super) enforcement: Enforcement,
    /// `spec.provider.name` of a CUSTOM policy.
    pub(super) provider: Option<Arc<str>>,
    pub(super) rules: Vec<Rule>,
}

/// A rule. It matches if one of its sources (or it has none), one of its operations (or it has none)
/// and all of its conditions do.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Rule {
    pub(super) from: Vec<Vec<Criterion>>,
    pub(super) to: Vec<Vec<Criterion>>,
    pub(super) when: Vec<Criterion>,
}

/// One source and one operation of a rule, by their indexes; `None` if the rule has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Conjunction {
    source: Option<usize>,
    operation: Option<usize>,
}

impl Rule {
    /// Whether the rule matches.
    pub(super) fn matches(&self, facts: &Facts<'_>) -> Ternary {
        let is_opaque = matches!(facts.knowledge, Knowledge::Opaque);
        if is_opaque && self.is_void_for_opaque(facts.action) {
            return Ternary::False;
        }
        let all = |criteria: &[Criterion]| Ternary::all(criteria.iter().map(|c| c.holds(facts)));
        let one_of = |alternatives: &[Vec<Criterion>]| {
            if alternatives.is_empty() {
                return Ternary::True;
            }
            Ternary::any(alternatives.iter().map(|criteria| all(criteria)))
        };
        // Sources come first: most rules of a long policy do not match because of the caller.
        let clauses = [&self.from, &self.to]
            .into_iter()
            .map(|clause| one_of(clause));
        Ternary::all(clauses.chain(iter::once_with(|| all(&self.when))))
    }

    /// Whether the rule cannot match bytes that are not HTTP: an ALLOW rule that mentions HTTP in any
    /// of its criteria.
    pub(super) fn is_void_for_opaque(&self, action: Action) -> bool {
        action == Action::Allow && self.mentions_http()
    }

    /// Whether one of its criteria is about HTTP.
    pub(super) fn mentions_http(&self) -> bool {
        self.all_criteria().any(Criterion::is_http)
    }

    /// Whether one of its criteria depends on the request, on ports that carry HTTP.
    pub(super) fn depends_on_request(&self) -> bool {
        self.all_criteria().any(Criterion::depends_on_request)
    }

    /// Its conjunctions. The rule matches if one of them holds.
    pub(super) fn conjunctions(&self) -> impl Iterator<Item = Conjunction> {
        let numbers = |count: usize| match count {
            0 => vec![None],
            _ => (0..count).map(Some).collect(),
        };
        let operations = numbers(self.to.len());
        numbers(self.from.len())
            .into_iter()
            .flat_map(move |source| {
                let conjunction = move |operation| Conjunction { source, operation };
                operations.clone().into_iter().map(conjunction)
            })
    }

    /// The number of its conjunctions.
    pub(super) fn conjunction_count(&self) -> usize {
        self.from.len().max(1).saturating_mul(self.to.len().max(1))
    }

    /// The criteria of a conjunction.
    pub(super) fn criteria(&self, conjunction: Conjunction) -> impl Iterator<Item = &Criterion> {
        let from = conjunction.source.and_then(|number| self.from.get(number));
        let to = conjunction.operation.and_then(|number| self.to.get(number));
        from.into_iter().chain(to).flatten().chain(&self.when)
    }

    /// All criteria of the rule: of sources, operations and conditions.
    pub(super) fn all_criteria(&self) -> impl Iterator<Item = &Criterion> {
        self.from.iter().chain(&self.to).flatten().chain(&self.when)
    }
}
