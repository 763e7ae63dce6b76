//! Explanations agree with the evaluator.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::generate::{connection, policies, request};
use super::super::web;
use crate::explain::DecidedBy;
use crate::explain::ruling::{CaseVerdict, ExplainedCase};
use crate::peer_authentication::MtlsMode;
use crate::{
    Approvals, ConnectionAttributes, ConnectionVerdict, RequestAttributes, WorkloadPolicies,
};

/// Compares a ruling with the evaluator's verdict, if all authorizers allow or none is known.
fn assert_same(
    policies: &WorkloadPolicies,
    connection: &ConnectionAttributes,
    request: Option<&RequestAttributes>,
    providers: &BTreeSet<std::sync::Arc<str>>,
) {
    let case = ExplainedCase {
        connection,
        request,
        providers,
    };
    let ruling = policies.rule_on(&case);
    let mut approvals = Approvals::default();
    for provider in providers {
        approvals.add(std::sync::Arc::clone(provider));
    }
    let is_http = policies.carries_http(connection.destination.port());
    let allows = match (is_http, request) {
        (true, Some(request)) => {
            let decision = policies.judge_request(connection, request, &approvals);
            decision.is_ok()
        }
        (false, _) => {
            let decision = policies.judge_opaque(connection, &approvals);
            decision.is_ok()
        }
        (true, None) => return assert_before_request(policies, &case),
    };
    let explained = match &ruling.outcome {
        CaseVerdict::Allowed(_) => true,
        CaseVerdict::OnAuthorizer(consultation) => {
            assert!(providers.contains(&consultation.provider));
            true
        }
        CaseVerdict::Denied(_) => false,
        CaseVerdict::OnRequest => panic!("{connection:?} {request:?}: all is known"),
    };
    assert_eq!(explained, allows, "{connection:?} {request:?}: {ruling:?}");
    let in_kernel = matches!(
        ruling.decided,
        DecidedBy::KernelAtConnect | DecidedBy::KernelAtSyn
    );
    let asked = policies.judge_connection(connection) == ConnectionVerdict::Ask;
    assert_eq!(in_kernel, !asked, "{connection:?}: {ruling:?}");
}

fn assert_before_request(policies: &WorkloadPolicies, case: &ExplainedCase<'_>) {
    let ruling = policies.rule_on(case);
    match policies.judge_connection(case.connection) {
        ConnectionVerdict::Allow(permit) => {
            assert_eq!(ruling.outcome, CaseVerdict::Allowed(permit.into_decider()));
        }
        ConnectionVerdict::Deny(denial) => assert_eq!(ruling.outcome, CaseVerdict::Denied(denial)),
        ConnectionVerdict::Ask => assert!(
            !matches!(
                ruling.decided,
                DecidedBy::KernelAtConnect | DecidedBy::KernelAtSyn
            ),
            "{ruling:?}"
        ),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn an_explanation_is_the_evaluators_verdict(
        mesh in policies(),
        connections in vec(connection(), 6),
        requests in vec(request(), 6),
    ) {
        let policies = mesh.policies();
        let providers = [BTreeSet::new(), BTreeSet::from(["x".into()])];
        for connection in &connections {
            for providers in &providers {
                assert_same(&policies, connection, None, providers);
                for request in &requests {
                    assert_same(&policies, connection, Some(request), providers);
                }
            }
        }
    }

    #[test]
    fn the_nearest_rule_lacks_something_and_what_decides_has_it_all(
        mesh in policies(),
        connection in connection(),
        request in request(),
    ) {
        let policies = mesh.policies();
        let providers = BTreeSet::new();
        let case = ExplainedCase { connection: &connection, request: Some(&request), providers: &providers };
        let ruling = policies.rule_on(&case);
        if let CaseVerdict::Denied(denial) = &ruling.outcome
            && denial.reason == ambit_common::Reason::NoAllowMatched
        {
            let nearest = policies.nearest(&case);
            prop_assert!(nearest.is_none_or(|rule| !rule.criteria.is_empty()));
        }
        // The request decides a criterion of each undecided rule.
        let without = ExplainedCase { request: None, ..case };
        if policies.rule_on(&without).outcome == CaseVerdict::OnRequest {
            let undecided = policies.undecided(&without);
            prop_assert!(!undecided.is_empty());
            prop_assert!(undecided.iter().all(|rule| !rule.criteria.is_empty()));
        }
    }

    #[test]
    fn the_mode_that_is_shown_is_the_one_that_is_enforced(mesh in policies()) {
        let index = mesh.index();
        let policies = index.for_workload(&web());
        for port in [80, 8080, 9090] {
            let shown = index.authentication(&web(), port);
            let strict = shown.filter(|(_, mode)| *mode == MtlsMode::Strict);
            let strict = strict.map(|(object, _)| object);
            let enforced = policies.strictness.of(port);
            prop_assert_eq!(strict.as_ref(), enforced);
        }
    }
}
