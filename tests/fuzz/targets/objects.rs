//! Configuration: any text is read or reported, and if it is read, the kernel's tables and the
//! evaluator agree on it.

#![no_main]

use std::net::SocketAddr;

use ambit_common::Verdict;
use ambit_fuzz::ensure_linear_text;
use ambit_model::{MeshRanges, Revision, TrustBundle, TrustDomain};
use ambit_policy::{Attributes, ConnectionVerdict, MeshView};
use ambit_source::files::{FileSourceConfig, snapshot_of};
use libfuzzer_sys::fuzz_target;

const SOURCES: [&str; 3] = ["10.1.2.3", "192.0.2.1", "fd00::1"];
const DESTINATIONS: [&str; 3] = ["10.1.0.1:80", "10.1.0.1:8080", "[fd00::2]:443"];

fuzz_target!(|text: String| {
    ensure_linear_text(&text, |text| snapshot_of(text.to_owned(), config()));
    check(text);
});

fn config() -> FileSourceConfig {
    FileSourceConfig {
        directory: "/config".into(),
        trust_bundle: TrustBundle::without_aliases(
            TrustDomain::new("cluster.local").expect("a trust domain"),
        ),
        root_namespace: "istio-system".into(),
        revision: Revision::default(),
        ranges: MeshRanges::default(),
    }
}

fn check(text: String) {
    let view = MeshView::new(snapshot_of(text, config()).into());
    for workload in view.snapshot.workloads() {
        let policies = view.policies.for_workload(workload);
        let tables = policies.compile();
        for source in SOURCES {
            for destination in DESTINATIONS {
                let connection = Attributes {
                    identity: Some(workload.identity.clone()),
                    source: source.parse().expect("an address"),
                    destination: destination.parse::<SocketAddr>().expect("an address"),
                };
                let verdict = tables.judge(&connection).verdict;
                match policies.judge_connection(&connection) {
                    ConnectionVerdict::Allow(_) => {
                        assert!(matches!(verdict, Verdict::Allow | Verdict::Ask));
                    }
                    ConnectionVerdict::Deny(_) => assert_ne!(verdict, Verdict::Allow),
                    ConnectionVerdict::Ask => assert_eq!(verdict, Verdict::Ask),
                }
            }
        }
    }
}
