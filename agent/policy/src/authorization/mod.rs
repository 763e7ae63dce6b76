//! AuthorizationPolicy: its rules, as `security.istio.io` v1 defines them.

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

/// What a matching policy does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Action {
    /// Lets the connection through, unless a DENY policy matches.
    Allow,
    /// Refuses it.
    Deny,
    /// Has it noted.
    Audit,
    /// Asks an external authorizer.
    Custom,
}

impl Action {
    /// As `spec.action` has it.
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
    /// It does.
    Enforced,
    /// What it would decide is noted (annotation `istio.io/dry-run`).
    DryRun,
}

/// The rules of a policy.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct AuthorizationPolicy {
    pub(super) action: Action,
    pub(super) enforcement: Enforcement,
    /// Of a CUSTOM policy.
    pub(super) provider: Option<Arc<str>>,
    pub(super) rules: Vec<Rule>,
}

/// One of the sources, where there are any, one of the operations, where there are any, and all of
/// the conditions.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Rule {
    pub(super) from: Vec<Vec<Criterion>>,
    pub(super) to: Vec<Vec<Criterion>>,
    pub(super) when: Vec<Criterion>,
}

/// One source and one operation of a rule, by their numbers, where it has any.
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
        // One after the other: most rules of a long policy do not match by who calls.
        let sides = [&self.from, &self.to].into_iter().map(|side| one_of(side));
        Ternary::all(sides.chain(iter::once_with(|| all(&self.when))))
    }

    /// Whether it matches nothing that is not HTTP: an ALLOW rule that mentions HTTP anywhere.
    pub(super) fn is_void_for_opaque(&self, action: Action) -> bool {
        action == Action::Allow && self.mentions_http()
    }

    /// Whether a criterion of it is about HTTP.
    pub(super) fn mentions_http(&self) -> bool {
        self.all_criteria().any(Criterion::is_http)
    }

    /// Whether a criterion of it holds or not by the request, where there is one.
    pub(super) fn depends_on_request(&self) -> bool {
        self.all_criteria().any(Criterion::depends_on_request)
    }

    /// Its conjunctions, of which one has to hold.
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

    /// How many conjunctions it has.
    pub(super) fn conjunction_count(&self) -> usize {
        self.from.len().max(1).saturating_mul(self.to.len().max(1))
    }

    /// The criteria of a conjunction.
    pub(super) fn criteria(&self, conjunction: Conjunction) -> impl Iterator<Item = &Criterion> {
        let from = conjunction.source.and_then(|number| self.from.get(number));
        let to = conjunction.operation.and_then(|number| self.to.get(number));
        from.into_iter().chain(to).flatten().chain(&self.when)
    }

    /// All of them, wherever they stand.
    pub(super) fn all_criteria(&self) -> impl Iterator<Item = &Criterion> {
        self.from.iter().chain(&self.to).flatten().chain(&self.when)
    }
}
