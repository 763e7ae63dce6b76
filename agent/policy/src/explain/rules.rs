//! Rules beside the facts: which criteria hold, which do not, which the request decides.

use super::answer::CriterionText;
use super::ruling::Case;
use crate::authorization::{Action, Clause, Criterion, Facts, Knowledge, Rule};
use crate::decision::Decider;
use crate::ternary::Ternary;
use crate::workload_policies::{Attached, WorkloadPolicies};

/// The most combinations of sources and operations of a rule that are written out.
const MOST_ALTERNATIVES: usize = 16;

/// A rule and some of its criteria.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Described {
    pub(super) decider: Decider,
    pub(super) action: Action,
    pub(crate) criteria: Vec<CriterionText>,
}

impl WorkloadPolicies {
    /// The criteria of a rule that matches.
    pub(super) fn matched(&self, case: &Case<'_>, decider: &Decider) -> Vec<CriterionText> {
        let mut all = self.policies.iter();
        let attached = all.find(|attached| attached.name == decider.name);
        let rule = attached.and_then(|attached| {
            let rule = attached.policy.rules.get(decider.rule?)?;
            Some((rule, self.facts(case, attached.policy.action)))
        });
        rule.map_or_else(Vec::new, |(rule, facts)| matched(rule, &facts))
    }

    /// The ALLOW rule with the fewest unmet criteria, which are those given; the first of several.
    pub(crate) fn nearest(&self, case: &Case<'_>) -> Option<Described> {
        let facts = self.facts(case, Action::Allow);
        let policies = self.enforced(Action::Allow, case.connection.destination.port());
        let rules = policies.flat_map(|attached| {
            let rules = attached.policy.rules.iter().enumerate();
            rules.map(move |(index, rule)| (attached, index, rule))
        });
        rules
            .map(|(attached, index, rule)| described(attached, index, unmet(rule, &facts)))
            .min_by_key(|described| described.criteria.len())
    }

    /// The rules that match or not by the request, once for each of their alternatives.
    pub(crate) fn undecided(&self, case: &Case<'_>) -> Vec<Described> {
        let port = case.connection.destination.port();
        let actions = [Action::Custom, Action::Deny, Action::Allow];
        let mut all = Vec::new();
        for action in actions {
            let facts = self.facts(case, action);
            for attached in self.enforced(action, port) {
                for (index, rule) in attached.policy.rules.iter().enumerate() {
                    if rule.matches(&facts) == Ternary::Unknown {
                        let alternatives = undecided(rule, &facts);
                        all.extend(alternatives.map(|list| described(attached, index, list)));
                    }
                }
            }
        }
        all
    }

    fn facts<'a>(&self, case: &Case<'a>, action: Action) -> Facts<'a> {
        Facts {
            connection: case.connection,
            knowledge: self.knowledge(case),
            action,
        }
    }
}

fn described(attached: &Attached, index: usize, criteria: Vec<CriterionText>) -> Described {
    Described {
        decider: attached.decider(Some(index)),
        action: attached.policy.action,
        criteria,
    }
}

fn matched(rule: &Rule, facts: &Facts<'_>) -> Vec<CriterionText> {
    let holding = |list: &&[Criterion]| list.iter().all(|c| c.holds(facts) == Ternary::True);
    let first = |list: &[Vec<Criterion>]| {
        let found = alternatives(list).into_iter().find(holding);
        texts(
            found.unwrap_or_default(),
            Clause::Alternative,
            facts,
            Ternary::True,
        )
    };
    let mut all = first(&rule.from);
    all.extend(first(&rule.to));
    all.extend(texts(&rule.when, Clause::When, facts, Ternary::True));
    all
}

/// The unmet criteria of the source and of the operation that come nearest, and of the conditions.
fn unmet(rule: &Rule, facts: &Facts<'_>) -> Vec<CriterionText> {
    let nearest = |list: &[Vec<Criterion>]| {
        let each = alternatives(list).into_iter();
        let unmet = each.map(|one| texts(one, Clause::Alternative, facts, Ternary::False));
        unmet.min_by_key(Vec::len).unwrap_or_default()
    };
    let mut all = nearest(&rule.from);
    all.extend(nearest(&rule.to));
    all.extend(texts(&rule.when, Clause::When, facts, Ternary::False));
    let is_void =
        matches!(facts.knowledge, Knowledge::Opaque) && rule.is_void_for_opaque(facts.action);
    if is_void && all.is_empty() {
        // Another alternative mentions HTTP, which voids the rule as a whole.
        all.extend(first_of_http(rule, facts));
    }
    all
}

fn first_of_http(rule: &Rule, facts: &Facts<'_>) -> Option<CriterionText> {
    let alternatives = rule.from.iter().chain(&rule.to).flatten();
    let alternatives = alternatives.map(|criterion| (criterion, Clause::Alternative));
    let conditions = rule.when.iter().map(|criterion| (criterion, Clause::When));
    let mut all = alternatives.chain(conditions);
    let (criterion, clause) = all.find(|(criterion, _)| criterion.is_http())?;
    Some(text(criterion, clause, facts))
}

fn undecided(rule: &Rule, facts: &Facts<'_>) -> impl Iterator<Item = Vec<CriterionText>> {
    let possible = |list: &&[Criterion]| list.iter().all(|c| c.holds(facts) != Ternary::False);
    let unknown = |list, clause| texts(list, clause, facts, Ternary::Unknown);
    let mut all = Vec::new();
    for from in alternatives(&rule.from).into_iter().filter(possible) {
        for to in alternatives(&rule.to).into_iter().filter(possible) {
            let mut criteria = unknown(from, Clause::Alternative);
            criteria.extend(unknown(to, Clause::Alternative));
            criteria.extend(unknown(&rule.when, Clause::When));
            all.push(criteria);
        }
    }
    all.into_iter().take(MOST_ALTERNATIVES)
}

/// The sources or operations of a rule, of which one has to hold: where there is none, one without
/// criteria.
fn alternatives(list: &[Vec<Criterion>]) -> Vec<&[Criterion]> {
    match list {
        [] => vec![&[]],
        some => some.iter().map(Vec::as_slice).collect(),
    }
}

/// Those of some criteria that hold, or do not, or may; of each the half to which that applies.
fn texts(
    criteria: &[Criterion],
    clause: Clause,
    facts: &Facts<'_>,
    which: Ternary,
) -> Vec<CriterionText> {
    let concerned = criteria.iter().filter(|c| c.holds(facts) == which);
    let halves = concerned.flat_map(|criterion| {
        let halves = criterion.halves().into_iter();
        let mut halves: Vec<_> = halves.filter(|half| half.holds(facts) == which).collect();
        if halves.is_empty() {
            halves.push(criterion.clone());
        }
        halves
    });
    halves.map(|half| text(&half, clause, facts)).collect()
}

fn text(criterion: &Criterion, clause: Clause, facts: &Facts<'_>) -> CriterionText {
    CriterionText {
        field: criterion.name(clause),
        wants: criterion.wants(),
        found: criterion.found(facts),
    }
}
