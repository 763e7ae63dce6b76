//! Explains a verdict: the evaluator's own verdict on a question, the rule behind it, and for a
//! denial the rule that comes nearest to allowing.
//!
//! Nothing here matches a value itself: `ruling` asks the evaluator and the criteria of its rules.

mod endpoint;
mod explanation;
mod names;
mod question;
pub(super) mod ruling;

use std::net::IpAddr;

pub use explanation::{
    AccessExplanation, AccessVerdict, AuthenticationMode, Cause, CriterionText, DecidedBy,
    EndpointResult, ExplainedCaller, ExplainedEndpoint, ExplainedRequest, Explanation,
    PortAuthentication, RuleName, RuleText,
};
pub use question::{
    AccessNameError, AccessQuestion, CallerName, CallerTransport, DestinationName,
    HypotheticalRequest, QuestionError,
};

use super::MeshView;
use super::authorization::Criterion;
use super::request::HeaderKey;
use super::workload_policies::WorkloadPolicies;
use ambit_model::PodEndpoint;
use endpoint::ResolvedQuestion;
use names::{ResolvedCaller, ResolvedDestination};

impl MeshView {
    /// Answers a question.
    ///
    /// # Errors
    /// [`QuestionError`] if it names something that does not exist, or cannot be asked.
    pub fn explain(&self, question: &AccessQuestion) -> Result<AccessExplanation, QuestionError> {
        let snapshot = &self.snapshot;
        let caller = ResolvedCaller::resolve(question, snapshot)?;
        let destination = ResolvedDestination::resolve(&question.to, question.port, snapshot)?;
        let request = question.request.as_ref();
        let request = request
            .map(|asked| asked.attributes(&destination.host, snapshot))
            .transpose()?;
        let shown = request.as_ref().zip(question.request.as_ref());
        let shown =
            shown.map(|(request, asked)| ExplainedRequest::of(request, asked.path_and_query()));
        let asked = ResolvedQuestion {
            view: self,
            caller: &caller,
            request: request.as_ref(),
            shown: shown.as_ref(),
        };
        let mut assumptions = caller.assumptions.clone();
        assumptions.extend(destination.assumptions.iter().cloned());
        if !snapshot.is_complete() {
            assumptions.push(
                "the configuration is not known in full, and until it is, every pod of the node stays \
                 closed; `ambit status` shows the faults"
                    .to_owned(),
            );
        }
        let mut results: Vec<EndpointResult> = Vec::new();
        let mut address = None;
        for target in &destination.endpoints {
            let own = caller.address(target.address.ip())?;
            address = address.or(own);
            for assumption in self.assumptions(question, own, target) {
                if !assumptions.contains(&assumption) {
                    assumptions.push(assumption);
                }
            }
            add(&mut results, target, asked.of(target)?);
        }
        Ok(AccessExplanation {
            caller: caller.shown(address),
            destination: destination.description,
            request: shown,
            assumptions,
            results,
        })
    }

    /// The assumptions about what the question leaves out, if a policy of the destination depends on it.
    fn assumptions(
        &self,
        question: &AccessQuestion,
        source: Option<IpAddr>,
        target: &PodEndpoint,
    ) -> Vec<String> {
        let policies = self.policies.for_workload(&target.workload);
        let mut assumptions = Vec::new();
        if source.is_none() && policies.has_criterion(is_about_source) {
            assumptions.push(
                "rules depend on the caller's address, which is not known: the unspecified address is \
                 used (--from-address sets another)"
                    .to_owned(),
            );
        }
        let Some(request) = &question.request else {
            return assumptions;
        };
        if request.host.is_none() && policies.has_criterion(is_about_host) {
            assumptions.push(
                "rules depend on the host: it is assumed to be the destination's own name (--host sets \
                 it)"
                    .to_owned(),
            );
        }
        if request.claims.is_some() {
            assumptions
                .push("the token was not verified here: its payload is taken as it is".to_owned());
        }
        assumptions
    }
}

impl WorkloadPolicies {
    fn has_criterion(&self, is_meant: fn(&Criterion) -> bool) -> bool {
        let rules = self.policies.iter().flat_map(|one| &one.policy.rules);
        rules
            .flat_map(super::authorization::Rule::all_criteria)
            .any(is_meant)
    }
}

const fn is_about_source(criterion: &Criterion) -> bool {
    matches!(criterion, Criterion::SourceIp(_) | Criterion::RemoteIp(_))
}

const fn is_about_host(criterion: &Criterion) -> bool {
    matches!(
        criterion,
        Criterion::Host(_) | Criterion::Header(HeaderKey::Authority, _)
    )
}

/// Adds an endpoint to the result with the same explanation, or a new result.
fn add(results: &mut Vec<EndpointResult>, target: &PodEndpoint, explanation: Explanation) {
    let endpoint = ExplainedEndpoint {
        pod: target.workload.name.clone(),
        address: target.address,
    };
    let same = results
        .iter_mut()
        .find(|result| result.explanation == explanation);
    match same {
        Some(result) => result.endpoints.push(endpoint),
        None => results.push(EndpointResult {
            endpoints: vec![endpoint],
            explanation,
        }),
    }
}
