//! Kernel and userspace give the same verdict, for the same rule.

use ambit_common::{Judgement, SetMode, Verdict};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::Mesh;
use super::generate::{connection, policies, request};
use crate::policy::{
    Approvals, Attributes, CompiledSet, ConnectionVerdict, Decision, RequestAttributes,
    RequestDecision, WorkloadPolicies,
};

/// Holds the tables' judgement of a connection against the evaluator's.
pub(super) fn assert_agreement(policies: &WorkloadPolicies, connection: &Attributes) {
    let compiled = policies.compile();
    assert_judged_alike(policies, &compiled, connection, compiled.judge(connection));
}

/// Holds a judgement by the tables of `compiled` against the evaluator's, and the rule behind it.
pub(crate) fn assert_judged_alike(
    policies: &WorkloadPolicies,
    compiled: &CompiledSet,
    connection: &Attributes,
    judged: Judgement,
) {
    let named = compiled.decider(judged.alternative);
    let fits = compiled.header.mode != SetMode::Ask as u8;
    let evaluated = policies.judge_connection(connection);
    let agrees = match (&evaluated, judged.verdict) {
        (ConnectionVerdict::Allow(permit), Verdict::Allow) => {
            permit.clone().into_decider().as_ref() == named
        }
        (ConnectionVerdict::Deny(denial), Verdict::Deny) => denial.decider.as_ref() == named,
        (ConnectionVerdict::Deny(_), Verdict::NoAllow | Verdict::Refuse) => named.is_none(),
        (ConnectionVerdict::Ask, Verdict::Ask) => true,
        (_, Verdict::Ask) => !fits,
        _ => false,
    };
    assert!(
        agrees,
        "{connection:?}: the evaluator says {evaluated:?}, the tables {judged:?} ({named:?})"
    );
}

/// Holds the verdict on a connection against the one on each thing that it may carry.
pub(super) fn assert_no_contradiction(
    policies: &WorkloadPolicies,
    connection: &Attributes,
    requests: &[RequestAttributes],
) {
    let nobody = Approvals::default();
    let on_request = |request| policies.judge_request(connection, request, &nobody);
    let opaque = policies.judge_opaque(connection, &nobody);
    let verdict = policies.judge_connection(connection);
    match (&verdict, &opaque) {
        (ConnectionVerdict::Deny(_), Decision::Allow(_)) => panic!("{connection:?}: {opaque:?}"),
        // A rule that allows by L4 alone on a port that carries HTTP may mention HTTP elsewhere.
        (ConnectionVerdict::Allow(permit), Decision::Deny(_)) => {
            assert!(permit.clone().into_decider().is_some(), "{opaque:?}");
        }
        _ => {}
    }
    if !policies.carries_http(connection.destination.port()) {
        return;
    }
    for request in requests {
        let is_allowed = matches!(on_request(request), RequestDecision::Allow(_));
        let agrees = match verdict {
            ConnectionVerdict::Allow(_) => is_allowed,
            ConnectionVerdict::Deny(_) => !is_allowed,
            // What is not HTTP gets no further than a request, whose client may be another address.
            ConnectionVerdict::Ask => {
                matches!(opaque, Decision::Deny(_)) || is_allowed || request.forwarded_for.is_some()
            }
        };
        assert!(
            agrees,
            "{connection:?} {verdict:?}: {request:?} {:?}",
            on_request(request)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_kernel_says_what_the_evaluator_says(
        mesh in policies(),
        connections in vec(connection(), 16),
    ) {
        let policies = mesh.policies();
        for connection in &connections {
            assert_agreement(&policies, connection);
        }
    }

    #[test]
    fn the_verdict_on_a_connection_never_contradicts_the_one_on_what_it_carries(
        mesh in policies(),
        connections in vec(connection(), 8),
        requests in vec(request(), 8),
    ) {
        let policies = mesh.policies();
        for connection in &connections {
            assert_no_contradiction(&policies, connection, &requests);
        }
    }
}

/// The property above would hold of generators whose policies refuse everything.
#[test]
fn the_generated_policies_come_to_every_verdict() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let (mut allowed, mut denied, mut not_allowed, mut asked) = (0, 0, 0, 0);
    for _ in 0..1000 {
        let mesh = policies()
            .new_tree(&mut runner)
            .expect("generates")
            .current();
        let connection = connection().new_tree(&mut runner).expect("generates");
        let judged = mesh.policies().compile().judge(&connection.current());
        match judged.verdict {
            Verdict::Allow => allowed += 1,
            Verdict::Deny => denied += 1,
            Verdict::NoAllow => not_allowed += 1,
            Verdict::Ask => asked += 1,
            Verdict::Refuse => panic!("{judged:?}: these policies can be enforced"),
        }
    }
    assert!(
        allowed > 100 && denied > 100 && not_allowed > 50 && asked > 50,
        "{allowed} allowed, {denied} denied, {not_allowed} not allowed, {asked} asked"
    );
}

#[test]
fn a_set_beyond_the_tables_is_left_to_userspace() {
    let ports = |from: u16| {
        (from..from + 700)
            .map(|port| port.to_string())
            .collect::<Vec<_>>()
    };
    let operations = |from| {
        let each = ports(from).into_iter();
        each.map(|port| json!({"operation": {"ports": [port]}}))
            .collect::<Vec<_>>()
    };
    let small = Mesh::new().authorize("prod/a", json!({"rules": [{"to": operations(1)}]}));
    let small = small.policies();
    let big = Mesh::new()
        .authorize("prod/a", json!({"rules": [{"to": operations(1)}]}))
        .authorize("prod/b", json!({"rules": [{"to": operations(1000)}]}))
        .policies();
    let connection = super::Caller::Plaintext.calls(1500);
    assert_eq!(small.compile().judge(&connection).verdict, Verdict::NoAllow);
    assert_eq!(big.compile().judge(&connection).verdict, Verdict::Ask);
    assert!(big.admits(super::Caller::Plaintext, 1500));
    assert!(!big.admits(super::Caller::Plaintext, 2500));
}

#[test]
fn address_blocks_that_take_long_to_tabulate_are_left_to_userspace() {
    let blocks = |count: u16| {
        let each = (0..count).map(|number| {
            let [high, low] = number.to_be_bytes();
            format!("10.{high}.{low}.0/24")
        });
        let source = json!({"ipBlocks": each.collect::<Vec<_>>()});
        let rules = json!({"rules": [{"from": [{"source": source}]}]});
        Mesh::new().authorize("prod/blocks", rules).policies()
    };
    let connection = super::Caller::Plaintext.calls(80);
    for (count, verdict) in [(4000, Verdict::NoAllow), (5000, Verdict::Ask)] {
        let policies = blocks(count);
        assert_eq!(policies.compile().judge(&connection).verdict, verdict);
        assert_eq!(policies.fit_tables(), verdict != Verdict::Ask);
        assert!(!policies.admits(super::Caller::Plaintext, 80));
    }
}
