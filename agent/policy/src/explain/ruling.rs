//! The evaluator's verdict on a case, where it is reached, and which criteria of which rules hold.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::explanation::{CriterionText, DecidedBy};
use crate::authorization::{Action, Clause, Criterion, Facts, Knowledge, Rule};
use crate::decision::{ConnectionAttributes, ConnectionVerdict, Decider, Denial, Permit};
use crate::evaluate::{Approvals, Consultation, Ternary};
use crate::request::RequestAttributes;
use crate::workload_policies::{Attached, WorkloadPolicies};

/// The connection or request to judge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExplainedCase<'a> {
    pub(crate) connection: &'a ConnectionAttributes,
    /// `None` if only the connection is judged.
    pub(crate) request: Option<&'a RequestAttributes>,
    /// The external authorizers that the mesh configuration has.
    pub(crate) providers: &'a BTreeSet<Arc<str>>,
}

/// The verdict on a case, and where it is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ruling {
    pub(crate) outcome: CaseVerdict,
    pub(crate) decided: DecidedBy,
}

/// The verdict on a case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum CaseVerdict {
    /// It is allowed, by a rule or because no ALLOW policy applies.
    Allowed(Option<Decider>),
    Denied(Denial),
    /// Each request is judged.
    OnRequest,
    /// The authorizer's answer decides.
    OnAuthorizer(Consultation),
}

impl WorkloadPolicies {
    /// Judges a case as the kernel and the proxy do.
    pub(crate) fn rule_on(&self, case: &ExplainedCase<'_>) -> Ruling {
        let in_kernel = match (self.fit_tables(), &case.connection.identity) {
            (false, _) => DecidedBy::ProxyPerConnection,
            (true, Some(_)) => DecidedBy::KernelAtConnect,
            (true, None) => DecidedBy::KernelAtSyn,
        };
        let knowledge = self.knowledge(case);
        let (outcome, decided) = match self.judge_connection(case.connection) {
            ConnectionVerdict::Allow(permit) => {
                (CaseVerdict::Allowed(permit.into_decider()), in_kernel)
            }
            ConnectionVerdict::Deny(denial) => (CaseVerdict::Denied(denial), in_kernel),
            ConnectionVerdict::Ask => match knowledge {
                Knowledge::Nothing => self.before_request(case),
                Knowledge::Opaque => (self.outcome(case, None), DecidedBy::ProxyPerConnection),
                Knowledge::Request(request) => (
                    self.outcome(case, Some(request)),
                    DecidedBy::ProxyPerRequest,
                ),
            },
        };
        Ruling { outcome, decided }
    }

    /// What is known about the bytes of a case. A port that does not carry HTTP has no requests.
    pub(crate) fn knowledge<'a>(&self, case: &ExplainedCase<'a>) -> Knowledge<'a> {
        let is_http = self.carries_http(case.connection.destination.port());
        match (is_http, case.request) {
            (false, _) => Knowledge::Opaque,
            (true, None) => Knowledge::Nothing,
            (true, Some(request)) => Knowledge::Request(request),
        }
    }

    /// The verdict on a connection that the proxy judges, on a port that carries HTTP.
    fn before_request(&self, case: &ExplainedCase<'_>) -> (CaseVerdict, DecidedBy) {
        let of = |action| self.strongest(action, case.connection, Knowledge::Nothing);
        let port = case.connection.destination.port();
        let (allowed, allower) = of(Action::Allow);
        let needed = match self.first_allow(port) {
            Some(_) => allowed,
            None => Ternary::True,
        };
        let (denied, (custom, asking)) = (of(Action::Deny).0, of(Action::Custom));
        let is_open = [needed, denied, custom].contains(&Ternary::Unknown);
        if is_open || self.verifies_tokens(port) {
            return (CaseVerdict::OnRequest, DecidedBy::ProxyPerRequest);
        }
        if custom == Ternary::True && self.names_several_providers(port) {
            let denial = Denial {
                reason: ambit_common::Reason::DeniedByPolicy,
                decider: asking,
            };
            return (CaseVerdict::Denied(denial), DecidedBy::ProxyPerConnection);
        }
        let consultations = self.consultations(case.connection, Knowledge::Nothing);
        let outcome = consulted(case, consultations).unwrap_or(CaseVerdict::Allowed(allower));
        (outcome, DecidedBy::ProxyPerConnection)
    }

    /// The verdict if everything is known except an authorizer's answer. The answer matters only if
    /// everything else allows.
    fn outcome(
        &self,
        case: &ExplainedCase<'_>,
        request: Option<&RequestAttributes>,
    ) -> CaseVerdict {
        let knowledge = request.map_or(Knowledge::Opaque, Knowledge::Request);
        let consultations = self.consultations(case.connection, knowledge);
        let mut approvals = Approvals::default();
        for consultation in &consultations {
            if case.providers.contains(&consultation.provider) {
                approvals.add(Arc::clone(&consultation.provider));
            }
        }
        let allower = match request {
            None => self
                .judge_opaque(case.connection, &approvals)
                .map(Permit::into_decider),
            Some(request) => self
                .judge_request(case.connection, request, &approvals)
                .map(|permit| permit.decider().cloned()),
        };
        match allower {
            Err(denial) => CaseVerdict::Denied(denial),
            Ok(allower) => consulted(case, consultations).unwrap_or(CaseVerdict::Allowed(allower)),
        }
    }
}

/// The verdict that follows from the consultations; `None` if there are none.
fn consulted(case: &ExplainedCase<'_>, consultations: Vec<Consultation>) -> Option<CaseVerdict> {
    let is_known = |one: &Consultation| case.providers.contains(&one.provider);
    let (known, unknown): (Vec<_>, Vec<_>) = consultations.into_iter().partition(is_known);
    let denied = unknown.into_iter().next().map(|one| {
        CaseVerdict::Denied(Denial {
            reason: ambit_common::Reason::DeniedByPolicy,
            decider: Some(one.decider),
        })
    });
    denied.or_else(|| known.into_iter().next().map(CaseVerdict::OnAuthorizer))
}

/// The most conjunctions of a rule that are listed.
const MOST_CONJUNCTIONS: usize = 16;

/// A rule and some of its criteria.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DescribedRule {
    pub(super) decider: Decider,
    pub(super) action: Action,
    pub(crate) criteria: Vec<CriterionText>,
}

impl WorkloadPolicies {
    /// The criteria of a rule that matches.
    pub(super) fn matched(
        &self,
        case: &ExplainedCase<'_>,
        decider: &Decider,
    ) -> Vec<CriterionText> {
        let mut all = self.policies.iter();
        let attached = all.find(|attached| attached.name == decider.name);
        let rule = attached.and_then(|attached| {
            let rule = attached.policy.rules.get(decider.rule?)?;
            Some((rule, self.facts(case, attached.policy.action)))
        });
        rule.map_or_else(Vec::new, |(rule, facts)| matched(rule, &facts))
    }

    /// The ALLOW rule with the fewest unmet criteria, with those criteria.
    pub(crate) fn nearest(&self, case: &ExplainedCase<'_>) -> Option<DescribedRule> {
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

    /// The rules that depend on the request, one entry for each of their conjunctions.
    pub(crate) fn undecided(&self, case: &ExplainedCase<'_>) -> Vec<DescribedRule> {
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

    fn facts<'a>(&self, case: &ExplainedCase<'a>, action: Action) -> Facts<'a> {
        Facts {
            connection: case.connection,
            knowledge: self.knowledge(case),
            action,
        }
    }
}

fn described(attached: &Attached, index: usize, criteria: Vec<CriterionText>) -> DescribedRule {
    DescribedRule {
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

/// The unmet criteria of the source and the operation that have the fewest, and of the conditions.
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
        // Another source or operation mentions HTTP, which voids the whole rule.
        all.extend(first_about_http(rule, facts));
    }
    all
}

fn first_about_http(rule: &Rule, facts: &Facts<'_>) -> Option<CriterionText> {
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
    all.into_iter().take(MOST_CONJUNCTIONS)
}

/// The sources or operations of a rule. If it has none, one without criteria.
fn alternatives(list: &[Vec<Criterion>]) -> Vec<&[Criterion]> {
    match list {
        [] => vec![&[]],
        some => some.iter().map(Vec::as_slice).collect(),
    }
}

/// Describes the criteria that hold, do not hold or are unknown; of each, the half for which it is so.
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
