//! The kernel program that judges connections gives the same verdict as the evaluator, on the maps that the
//! agent writes.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Instant;

use ambit_common::{
    AddressBitsKey, ClassifierOutput, IdentityBitsKey, IdentityId, Judgement, KernelVerdict,
    PolicySetHeader, PolicySetId, PortBitsKey, SetBits,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use serde_json::json;

use super::classifier::{Classifier, question};
use crate::PolicyTables;
use ambit_policy::ConnectionAttributes;
use ambit_policy::testing::{TestMesh, assert_judged_alike, connection, policies};

/// Adds `count` alternatives that no connection satisfies before those of all other policies. So the
/// alternatives that decide are in another word of the bitmaps, or do not fit them.
fn with_alternatives_before(mesh: TestMesh, count: usize) -> TestMesh {
    if count == 0 {
        return mesh;
    }
    let operations = vec![json!({"operation": {"ports": ["7"]}}); count];
    let spec = json!({"action": "DENY", "rules": [{"to": operations}]});
    mesh.authorize("prod/before", spec)
}

fn meshes() -> impl Strategy<Value = TestMesh> {
    let before = prop_oneof![
        6 => Just(0),
        1 => select(&[50, 63, 500, 950, 1000][..]),
    ];
    (policies(), before).prop_map(|(mesh, count)| with_alternatives_before(mesh, count))
}

/// How many sets are in the maps before they are removed, because a removal takes the kernel some time.
const SETS_AT_ONCE: u32 = 50;

/// A plaintext connection from an unknown address to the workload.
fn plaintext_to(port: u16) -> ConnectionAttributes {
    ConnectionAttributes {
        identity: None,
        source: [10, 9, 0, 1].into(),
        destination: ([10, 0, 0, 1], port).into(),
    }
}

#[test]
fn the_kernel_program_says_what_the_evaluator_says() {
    let Some(classifier) = Classifier::load() else {
        return;
    };
    let mut runner = TestRunner::new(ProptestConfig::with_cases(2000));
    let cases = (meshes(), vec(connection(), 64));
    let enforced = Cell::new(0_u32);
    let result = runner.run(&cases, |(mesh, connections)| {
        let policies = mesh.policies();
        let compiled = policies.compile();
        let set = classifier.enforce(&policies);
        for connection in &connections {
            let answer = classifier.judge(set, connection);
            let judged = answer.judgement().expect("complete tables");
            assert_eq!(judged, compiled.judge(connection), "{connection:?}");
            assert_judged_alike(&policies, &compiled, connection, judged);
        }
        enforced.set(enforced.get() + 1);
        if enforced.get().is_multiple_of(SETS_AT_ONCE) {
            classifier.forget();
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}\n{runner}");
    }
}

#[test]
fn every_alternative_of_a_full_set_decides() {
    let Some(classifier) = Classifier::load() else {
        return;
    };
    for (action, verdict, otherwise) in [
        ("ALLOW", KernelVerdict::Allow, KernelVerdict::NoAllow),
        ("DENY", KernelVerdict::Deny, KernelVerdict::Allow),
    ] {
        // A policy has at most 512 rules.
        let spec = |ports: Range<u16>| {
            let rule = |port: u16| json!({"to": [{"operation": {"ports": [port.to_string()]}}]});
            json!({"action": action, "rules": ports.map(rule).collect::<Vec<_>>()})
        };
        let policies = TestMesh::new()
            .authorize("prod/a", spec(2000..2510))
            .authorize("prod/b", spec(2510..3020))
            .policies();
        let compiled = policies.compile();
        let set = classifier.enforce(&policies);
        let judge = |port| classifier.judge(set, &plaintext_to(port)).judgement();
        for number in 0..1020 {
            let expected = Judgement {
                verdict,
                alternative: u32::from(number),
            };
            assert_eq!(judge(2000 + number), Some(expected));
            let decider = compiled.decider(expected.alternative).expect("a rule");
            assert_eq!(decider.rule, Some(usize::from(number % 510)));
        }
        for port in [1999, 3020] {
            let other = judge(port).expect("complete tables");
            assert_eq!(other.verdict, otherwise, "{action} {port}");
        }
    }
}

#[test]
fn what_does_not_fit_is_asked_and_what_cannot_be_enforced_is_refused() {
    let Some(classifier) = Classifier::load() else {
        return;
    };
    let allow = || TestMesh::new().authorize("prod/a", json!({"rules": [{}]}));
    let unknown = json!({"action": "DENY", "rules": [{"from": [{"source": {"nose": ["x"]}}]}]});
    for (mesh, verdict) in [
        (allow(), KernelVerdict::Allow),
        (with_alternatives_before(allow(), 1024), KernelVerdict::Ask),
        (allow().authorize("prod/b", unknown), KernelVerdict::Refuse),
    ] {
        let set = classifier.enforce(&mesh.policies());
        let answer = classifier.judge(set, &plaintext_to(80)).judgement();
        assert_eq!(answer.map(|judged| judged.verdict), Some(verdict));
    }
}

#[test]
fn without_an_entry_that_must_be_there_is_no_verdict() {
    let Some(classifier) = Classifier::load() else {
        return;
    };
    let policies = TestMesh::new().policies();
    let set = classifier.enforce(&policies);
    let connection = plaintext_to(80);
    let known = question(set, IdentityId::NONE, &connection);
    let judged = classifier.ask(known).judgement().expect("a verdict");
    assert_eq!(judged.verdict, KernelVerdict::Allow);

    let stranger = question(set, IdentityId(77), &connection);
    assert_eq!(classifier.ask(stranger), ClassifierOutput::INCOMPLETE);
    for unknown in [PolicySetId::NONE, PolicySetId(set.0 + 1)] {
        let unknown = question(unknown, IdentityId::NONE, &connection);
        assert_eq!(classifier.ask(unknown), ClassifierOutput::INCOMPLETE);
    }
    let short = &known.to_bytes()[..40];
    assert_eq!(classifier.run(short), ClassifierOutput::UNREADABLE);

    classifier.forget();
    assert_eq!(classifier.ask(known), ClassifierOutput::INCOMPLETE);
}

#[test]
fn what_another_set_or_value_has_is_no_verdict() {
    let Some(classifier) = Classifier::load() else {
        return;
    };
    let spec = json!({"rules": [{"to": [{"operation": {"ports": ["80"]}}]}]});
    let policies = TestMesh::new().authorize("prod/a", spec).policies();
    let set = classifier.enforce(&policies);
    let asked = question(set, IdentityId::NONE, &plaintext_to(80));
    let allowed = |answer: ClassifierOutput| answer.judgement().map(|judged| judged.verdict);
    assert_eq!(allowed(classifier.ask(asked)), Some(KernelVerdict::Allow));

    // As if the memory of an entry had been used for another one while a program held it.
    let (other, pins) = (PolicySetId(set.0 + 1), &classifier.pins);
    let of_port = PortBitsKey {
        set,
        port: 80,
        zero: 0,
    };
    let mut ports = pins.hash::<_, SetBits>("PORT_BITS").expect("opens");
    let own = ports.get(&of_port, 0).expect("there");
    for wrong in [SetBits { set: other, ..own }, SetBits { value: 81, ..own }] {
        ports.insert(of_port, wrong, 0).expect("written");
        assert_eq!(classifier.ask(asked), ClassifierOutput::INCOMPLETE);
    }
    ports.insert(of_port, own, 0).expect("written");
    let of_nobody = IdentityBitsKey {
        set,
        identity: IdentityId::NONE,
    };
    let mut identities = pins.hash::<_, SetBits>("IDENTITY_BITS").expect("opens");
    let own = identities.get(&of_nobody, 0).expect("there");
    for wrong in [SetBits { set: other, ..own }, SetBits { value: 7, ..own }] {
        identities.insert(of_nobody, wrong, 0).expect("written");
        assert_eq!(classifier.ask(asked), ClassifierOutput::INCOMPLETE);
    }
    identities.insert(of_nobody, own, 0).expect("written");
    for name in ["SOURCE_BITS", "DESTINATION_BITS"] {
        let mut trie = pins.trie::<AddressBitsKey, SetBits>(name).expect("opens");
        let entries: Vec<_> = trie.iter().map(|entry| entry.expect("reads")).collect();
        for (key, own) in &entries {
            let wrong = SetBits { set: other, ..*own };
            trie.insert(key, wrong, 0).expect("written");
        }
        assert_eq!(
            classifier.ask(asked),
            ClassifierOutput::INCOMPLETE,
            "{name}"
        );
        for (key, own) in &entries {
            trie.insert(key, own, 0).expect("written");
        }
    }
    assert_eq!(allowed(classifier.ask(asked)), Some(KernelVerdict::Allow));
    let mut headers = pins
        .hash::<_, PolicySetHeader>("POLICY_SETS")
        .expect("opens");
    let own = headers.get(&set, 0).expect("there");
    headers
        .insert(set, PolicySetHeader { set: other, ..own }, 0)
        .expect("written");
    assert_eq!(classifier.ask(asked), ClassifierOutput::INCOMPLETE);
}

#[test]
fn a_set_that_a_pod_still_uses_stays() {
    let Some(classifier) = Classifier::load() else {
        return;
    };
    let set = classifier.enforce(&TestMesh::new().policies());
    let asked = question(set, IdentityId::NONE, &plaintext_to(80));
    // An agent that has just started knows neither the set nor the pods that use it.
    let tables = PolicyTables::open(&classifier.pins).expect("opens");
    let now = Instant::now();
    tables.sweep(now, &[set].into()).expect("removed");
    assert!(classifier.ask(asked).judgement().is_some());
    tables.sweep(now, &BTreeSet::new()).expect("removed");
    assert_eq!(classifier.ask(asked), ClassifierOutput::INCOMPLETE);
}
