//! Kernel and userspace give the same verdict, for the same rule.

use std::net::{IpAddr, SocketAddr};

use ambit_common::Verdict;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use super::{Mesh, ROOT};
use crate::model::{TrustDomain, WorkloadIdentity};
use crate::policy::{Attributes, Decider, Decision, WorkloadPolicies};

/// Small pools, so that rules and connections meet.
const NAMESPACES: [&str; 3] = ["prod", "test", "prod-b"];
const NAMESPACE_VALUES: [&str; 6] = ["prod", "test", "*", "prod*", "*-b", "none"];
const PRINCIPAL_VALUES: [&str; 7] = [
    "*",
    "cluster.local/ns/prod/sa/a",
    "cluster.local/ns/test/sa/*",
    "*/sa/b",
    "other/ns/prod/sa/a",
    "cluster.local/*",
    "spiffe://cluster.local/ns/prod/sa/a",
];
const BLOCK_VALUES: [&str; 7] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.3",
    "0.0.0.0/0",
    "::/0",
    "fd00::/8",
    "fd00::1:0/112",
];
const SOURCES: [&str; 6] = [
    "10.1.2.3",
    "10.1.9.9",
    "10.9.9.9",
    "192.0.2.1",
    "fd00::1:5",
    "2001:db8::1",
];
const PORTS: [u16; 3] = [80, 8080, 9090];

/// Holds the kernel's judgement of a connection against the evaluator's.
pub(super) fn assert_agreement(policies: &WorkloadPolicies, connection: &Attributes) {
    let compiled = policies.compile();
    let judged = compiled.judge(connection);
    let number = usize::try_from(judged.alternative).expect("fits");
    let named = compiled.deciders.get(number);
    let agrees = match (policies.evaluate(connection), judged.verdict) {
        (Decision::Allow(permit), Verdict::Allow) => is_the_same(permit.into_decider(), named),
        (Decision::Deny(denial), Verdict::Deny) => is_the_same(denial.decider, named),
        (Decision::Deny(_), Verdict::NoAllow | Verdict::Refuse) => named.is_none(),
        (_, Verdict::Ask) => true,
        _ => false,
    };
    assert!(
        agrees,
        "{connection:?}: the evaluator says {:?}, the tables {judged:?} ({named:?})",
        policies.evaluate(connection)
    );
}

fn is_the_same(evaluated: Option<Decider>, named: Option<&Decider>) -> bool {
    evaluated.as_ref() == named
}

fn list(values: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(values, 0..=3)
}

/// An object of the lists that are not empty, or `None` where all are.
fn object(lists: Vec<(&str, Vec<String>)>) -> Option<Value> {
    let fields = lists.into_iter().filter(|(_, list)| !list.is_empty());
    let fields: Map<_, _> = fields
        .map(|(name, list)| (name.to_owned(), json!(list)))
        .collect();
    (!fields.is_empty()).then_some(Value::Object(fields))
}

fn texts(values: Vec<&str>) -> Vec<String> {
    values.into_iter().map(str::to_owned).collect()
}

fn source() -> impl Strategy<Value = Option<Value>> {
    let lists = (
        list(&PRINCIPAL_VALUES),
        list(&PRINCIPAL_VALUES),
        list(&NAMESPACE_VALUES),
        list(&NAMESPACE_VALUES),
        list(&BLOCK_VALUES),
        list(&BLOCK_VALUES),
    );
    // Few fields at a time: a conjunction of six admits almost nobody.
    (lists, vec(prop::bool::weighted(0.3), 6)).prop_map(|(lists, present)| {
        let named = [
            ("principals", lists.0),
            ("notPrincipals", lists.1),
            ("namespaces", lists.2),
            ("notNamespaces", lists.3),
            ("ipBlocks", lists.4),
            ("notIpBlocks", lists.5),
        ];
        let chosen = named.into_iter().zip(present);
        let chosen = chosen.filter_map(|(field, present)| present.then_some(field));
        object(chosen.map(|(name, list)| (name, texts(list))).collect())
    })
}

fn operation() -> impl Strategy<Value = Option<Value>> {
    let ports = || subsequence(&PORTS[..], 0..=2);
    (ports(), ports(), any::<bool>()).prop_map(|(ports, not_ports, positive)| {
        let texts = |list: Vec<u16>| list.iter().map(u16::to_string).collect();
        object(if positive {
            vec![("ports", texts(ports))]
        } else {
            vec![("ports", texts(ports)), ("notPorts", texts(not_ports))]
        })
    })
}

fn rule() -> impl Strategy<Value = Value> {
    (vec(source(), 0..3), vec(operation(), 0..3)).prop_map(|(from, to)| {
        let wrapped = |inside: &str, values: Vec<Option<Value>>| {
            let values = values.into_iter().flatten();
            values.map(|one| json!({inside: one})).collect::<Vec<_>>()
        };
        let lists = [
            ("from", wrapped("source", from)),
            ("to", wrapped("operation", to)),
        ];
        // An empty list is refused, unlike an absent one.
        let lists = lists.into_iter().filter(|(_, list)| !list.is_empty());
        Value::Object(
            lists
                .map(|(name, list)| (name.to_owned(), json!(list)))
                .collect(),
        )
    })
}

fn authorization() -> impl Strategy<Value = Value> {
    (select(&["ALLOW", "DENY"][..]), vec(rule(), 1..4))
        .prop_map(|(action, rules)| json!({"action": action, "rules": rules}))
}

fn mode() -> impl Strategy<Value = &'static str> {
    select(&["STRICT", "PERMISSIVE", "UNSET"][..])
}

fn authentication() -> impl Strategy<Value = Value> {
    (mode(), mode()).prop_map(|(mode, port_mode)| {
        json!({
            "selector": {"matchLabels": {"app": "web"}},
            "mtls": {"mode": mode},
            "portLevelMtls": {"8080": {"mode": port_mode}},
        })
    })
}

fn policies() -> impl Strategy<Value = Mesh> {
    let authentications = (mode(), prop::option::of(authentication()));
    (vec(authorization(), 0..4), authentications).prop_map(|(authorizations, (mesh, workload))| {
        let mut all =
            Mesh::new().authenticate(&format!("{ROOT}/default"), json!({"mtls": {"mode": mesh}}));
        if let Some(spec) = workload {
            all = all.authenticate("prod/web", spec);
        }
        for (number, spec) in authorizations.into_iter().enumerate() {
            all = all.authorize(&format!("prod/policy-{number}"), spec);
        }
        all
    })
}

fn identity() -> impl Strategy<Value = Option<WorkloadIdentity>> {
    let domain = select(&["cluster.local", "other"][..]);
    let parts = (domain, select(&NAMESPACES[..]), select(&["a", "b"][..]));
    prop::option::of(parts.prop_map(|(domain, namespace, account)| {
        let domain = TrustDomain::new(domain).expect("valid");
        WorkloadIdentity::new(domain, namespace, account).expect("valid")
    }))
}

fn connection() -> impl Strategy<Value = Attributes> {
    let port = prop_oneof![select(&PORTS[..]), Just(1)];
    (identity(), select(&SOURCES[..]), port).prop_map(|(identity, source, port)| Attributes {
        identity,
        source: source.parse::<IpAddr>().expect("valid"),
        destination: SocketAddr::from(([10, 0, 0, 1], port)),
    })
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
}

/// The property above would hold of generators whose policies refuse everything.
#[test]
fn the_generated_policies_come_to_every_verdict() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let (mut allowed, mut denied, mut not_allowed) = (0, 0, 0);
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
            Verdict::Ask | Verdict::Refuse => {
                panic!("{judged:?}: these policies fit the tables")
            }
        }
    }
    assert!(
        allowed > 100 && denied > 100 && not_allowed > 50,
        "{allowed} allowed, {denied} denied, {not_allowed} not allowed"
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
