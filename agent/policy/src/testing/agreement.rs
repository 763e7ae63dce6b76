//! Asserts that kernel and userspace give the same verdict, by the same rule.

use ambit_common::{Judgement, KernelVerdict, SetMode};

use crate::{
    Approvals, CompiledSet, ConnectionAttributes, ConnectionVerdict, RequestAttributes,
    WorkloadPolicies,
};

/// Compares the tables' judgement of a connection with the evaluator's.
pub fn assert_agreement(policies: &WorkloadPolicies, connection: &ConnectionAttributes) {
    let compiled = policies.compile();
    assert_judged_alike(policies, &compiled, connection, compiled.judge(connection));
}

/// Compares a judgement by the tables of `compiled`, and its rule, with the evaluator's.
pub fn assert_judged_alike(
    policies: &WorkloadPolicies,
    compiled: &CompiledSet,
    connection: &ConnectionAttributes,
    judged: Judgement,
) {
    let named = compiled.decider(judged.alternative);
    let fits = compiled.header.mode != SetMode::Ask as u8;
    let evaluated = policies.judge_connection(connection);
    let agrees = match (&evaluated, judged.verdict) {
        (ConnectionVerdict::Allow(permit), KernelVerdict::Allow) => {
            permit.clone().into_decider().as_ref() == named
        }
        (ConnectionVerdict::Deny(denial), KernelVerdict::Deny) => denial.decider.as_ref() == named,
        (ConnectionVerdict::Deny(_), KernelVerdict::NoAllow | KernelVerdict::Refuse) => {
            named.is_none()
        }
        (ConnectionVerdict::Ask, KernelVerdict::Ask) => true,
        (_, KernelVerdict::Ask) => !fits,
        _ => false,
    };
    assert!(
        agrees,
        "{connection:?}: the evaluator says {evaluated:?}, the tables {judged:?} ({named:?})"
    );
}

/// Compares the verdict on a connection with the verdicts on what it may carry.
pub fn assert_no_contradiction(
    policies: &WorkloadPolicies,
    connection: &ConnectionAttributes,
    requests: &[RequestAttributes],
) {
    let unasked = Approvals::default();
    let on_request = |request| policies.judge_request(connection, request, &unasked);
    let opaque = policies.judge_opaque(connection, &unasked);
    let verdict = policies.judge_connection(connection);
    match (&verdict, &opaque) {
        (ConnectionVerdict::Deny(_), Ok(_)) => panic!("{connection:?}: {opaque:?}"),
        // A rule that allows by L4 alone on a port that carries HTTP may mention HTTP elsewhere.
        (ConnectionVerdict::Allow(permit), Err(_)) => {
            assert!(permit.clone().into_decider().is_some(), "{opaque:?}");
        }
        _ => {}
    }
    if !policies.carries_http(connection.destination.port()) {
        return;
    }
    for request in requests {
        let is_allowed = on_request(request).is_ok();
        let agrees = match verdict {
            ConnectionVerdict::Allow(_) => is_allowed,
            ConnectionVerdict::Deny(_) => !is_allowed,
            // If other bytes are allowed, so is the request, unless its client is another address.
            ConnectionVerdict::Ask => {
                opaque.is_err() || is_allowed || request.forwarded_for.is_some()
            }
        };
        assert!(
            agrees,
            "{connection:?} {verdict:?}: {request:?} {:?}",
            on_request(request)
        );
    }
}
