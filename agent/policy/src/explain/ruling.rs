//! The evaluator's verdict, and where it falls.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::answer::DecidedBy;
use crate::authorization::{Action, Knowledge};
use crate::decision::{ConnectionAttributes, ConnectionVerdict, Decider, Denial, Permit};
use crate::evaluate::{Approvals, Consultation};
use crate::request::RequestAttributes;
use crate::ternary::Ternary;
use crate::workload_policies::WorkloadPolicies;

/// What is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case<'a> {
    pub(crate) connection: &'a ConnectionAttributes,
    /// `None`: only the connection.
    pub(crate) request: Option<&'a RequestAttributes>,
    /// The external authorizers that the mesh configuration has.
    pub(crate) providers: &'a BTreeSet<Arc<str>>,
}

/// What becomes of it, and where that is decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ruling {
    pub(crate) outcome: Outcome,
    pub(crate) decided: DecidedBy,
}

/// What becomes of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// It is allowed; by no rule where no ALLOW policy applies.
    Allowed(Option<Decider>),
    Denied(Denial),
    /// Requests are judged one by one.
    OnRequest,
    /// The authorizer's answer decides.
    OnAuthorizer(Consultation),
}

impl WorkloadPolicies {
    /// Judges a case as the kernel and the proxy do.
    pub(crate) fn rule_on(&self, case: &Case<'_>) -> Ruling {
        let in_kernel = match (self.fit_tables(), &case.connection.identity) {
            (false, _) => DecidedBy::ProxyPerConnection,
            (true, Some(_)) => DecidedBy::KernelAtConnect,
            (true, None) => DecidedBy::KernelAtSyn,
        };
        let knowledge = self.knowledge(case);
        let (outcome, decided) = match self.judge_connection(case.connection) {
            ConnectionVerdict::Allow(permit) => {
                (Outcome::Allowed(permit.into_decider()), in_kernel)
            }
            ConnectionVerdict::Deny(denial) => (Outcome::Denied(denial), in_kernel),
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

    /// What is known of the bytes of a case: a port that carries no HTTP has no requests.
    pub(crate) fn knowledge<'a>(&self, case: &Case<'a>) -> Knowledge<'a> {
        let is_http = self.carries_http(case.connection.destination.port());
        match (is_http, case.request) {
            (false, _) => Knowledge::Opaque,
            (true, None) => Knowledge::Nothing,
            (true, Some(request)) => Knowledge::Request(request),
        }
    }

    /// A connection of which userspace is asked, on a port that carries HTTP.
    fn before_request(&self, case: &Case<'_>) -> (Outcome, DecidedBy) {
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
            return (Outcome::OnRequest, DecidedBy::ProxyPerRequest);
        }
        if custom == Ternary::True && self.names_several_providers(port) {
            let denial = Denial {
                reason: ambit_common::Reason::DeniedByPolicy,
                decider: asking,
            };
            return (Outcome::Denied(denial), DecidedBy::ProxyPerConnection);
        }
        let consultations = self.consultations(case.connection, Knowledge::Nothing);
        let outcome = asked(case, consultations).unwrap_or(Outcome::Allowed(allower));
        (outcome, DecidedBy::ProxyPerConnection)
    }

    /// What becomes of something about which everything is known but an authorizer's answer: it
    /// matters only where everything else allows.
    fn outcome(&self, case: &Case<'_>, request: Option<&RequestAttributes>) -> Outcome {
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
            Err(denial) => Outcome::Denied(denial),
            Ok(allower) => asked(case, consultations).unwrap_or(Outcome::Allowed(allower)),
        }
    }
}

/// What follows from having to ask, where somebody has to be asked.
fn asked(case: &Case<'_>, consultations: Vec<Consultation>) -> Option<Outcome> {
    let is_known = |one: &Consultation| case.providers.contains(&one.provider);
    let (known, unknown): (Vec<_>, Vec<_>) = consultations.into_iter().partition(is_known);
    let denied = unknown.into_iter().next().map(|one| {
        Outcome::Denied(Denial {
            reason: ambit_common::Reason::DeniedByPolicy,
            decider: Some(one.decider),
        })
    });
    denied.or_else(|| known.into_iter().next().map(Outcome::OnAuthorizer))
}
