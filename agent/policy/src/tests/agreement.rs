//! Kernel and userspace give the same verdict, by the same rule.

use ambit_common::KernelVerdict;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::generate::{connection, policies, request};
use super::{TestMesh, assert_agreement, assert_no_contradiction};

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

/// The property above would also hold for generators whose policies refuse everything.
#[test]
fn the_generated_policies_reach_every_verdict() {
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
            KernelVerdict::Allow => allowed += 1,
            KernelVerdict::Deny => denied += 1,
            KernelVerdict::NoAllow => not_allowed += 1,
            KernelVerdict::Ask => asked += 1,
            KernelVerdict::Refuse => panic!("{judged:?}: these policies can be enforced"),
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
    let small = TestMesh::new().authorize("prod/a", json!({"rules": [{"to": operations(1)}]}));
    let small = small.policies();
    let big = TestMesh::new()
        .authorize("prod/a", json!({"rules": [{"to": operations(1)}]}))
        .authorize("prod/b", json!({"rules": [{"to": operations(1000)}]}))
        .policies();
    let connection = super::TestCaller::Plaintext.calls(1500);
    assert_eq!(
        small.compile().judge(&connection).verdict,
        KernelVerdict::NoAllow
    );
    assert_eq!(big.compile().judge(&connection).verdict, KernelVerdict::Ask);
    assert!(big.admits(super::TestCaller::Plaintext, 1500));
    assert!(!big.admits(super::TestCaller::Plaintext, 2500));
}

#[test]
fn address_blocks_that_are_too_many_for_the_tables_are_left_to_the_proxy() {
    let blocks = |count: u16| {
        let each = (0..count).map(|number| {
            let [high, low] = number.to_be_bytes();
            format!("10.{high}.{low}.0/24")
        });
        let source = json!({"ipBlocks": each.collect::<Vec<_>>()});
        let rules = json!({"rules": [{"from": [{"source": source}]}]});
        TestMesh::new().authorize("prod/blocks", rules).policies()
    };
    let connection = super::TestCaller::Plaintext.calls(80);
    for (count, verdict) in [(4000, KernelVerdict::Allow), (5000, KernelVerdict::Ask)] {
        let policies = blocks(count);
        assert_eq!(policies.compile().judge(&connection).verdict, verdict);
        assert_eq!(policies.fit_tables(), verdict != KernelVerdict::Ask);
        assert!(policies.admits(super::TestCaller::Plaintext, 80));
    }
}

#[test]
fn http_ports_that_many_alternatives_repeat_are_left_to_userspace() {
    let mut service =
        ambit_model::testing::service("prod/many", &[], 80, ambit_model::TargetPort::Number(80));
    let port = |number: u16| ambit_model::ServicePort {
        port: number,
        target: ambit_model::TargetPort::Number(number),
        protocol: ambit_model::AppProtocol::Http,
        ..service.ports[0].clone()
    };
    service.ports = (1..=2000).map(port).collect();
    let operations = |count: u16| {
        let operation = |port: u16| json!({"ports": [port.to_string()], "methods": ["GET"]});
        let each = (1..=count).map(|port| json!({"operation": operation(port)}));
        each.collect::<Vec<_>>()
    };
    for (count, fits) in [(200, true), (300, false)] {
        let policies = TestMesh::new()
            .serve(service.clone())
            .authorize("prod/a", json!({"rules": [{"to": operations(count)}]}))
            .policies();
        assert_eq!(policies.fit_tables(), fits, "{count}");
    }
}
