//! Trust domains and their aliases: which values of a policy match which peers.

use serde_json::{Value, json};

use super::TestMesh;
use ambit_model::{TrustDomain, WorkloadIdentity};

fn source(domains: &[&str], source: Value) -> TestMesh {
    let rules = json!([{"from": [{"source": source}]}]);
    TestMesh::new()
        .trusting(domains)
        .authorize("prod/policy", json!({"rules": rules}))
}

/// Which of the peers, as principals, a source admits.
fn admitted<'a>(domains: &[&str], field: Value, peers: &[&'a str]) -> Vec<&'a str> {
    let policies = source(domains, field).policies();
    let admits = |peer: &&&str| {
        let identity: WorkloadIdentity = peer.parse().expect("a principal");
        let mut connection = super::TestCaller::Plaintext.calls(8080);
        connection.identity = Some(identity);
        super::assert_agreement(&policies, &connection);
        let verdict = policies.judge_connection(&connection);
        matches!(verdict, crate::ConnectionVerdict::Allow(_))
    };
    peers.iter().filter(admits).copied().collect()
}

const PEERS: [&str; 6] = [
    "td1/ns/foo/sa/bar",
    "td2/ns/foo/sa/bar",
    "cluster.local/ns/foo/sa/bar",
    "other/ns/foo/sa/bar",
    "td1/ns/foo/sa/baz",
    "some-td/ns/foo/sa/bar",
];

/// Trust domains of the mesh, a value of `principals`, and the peers of [`PEERS`] that it matches.
#[test]
fn principals_stand_for_those_of_all_aliases() {
    let [td1, td2, local, other, baz, some] = PEERS;
    for (domains, value, peers) in [
        // Whole principals of the mesh.
        (&["td1", "td2"][..], "td1/ns/foo/sa/bar", &[td1, td2][..]),
        (&["td1", "td2"], "td2/ns/foo/sa/bar", &[td1, td2]),
        (&["td2", "td1"], "td1/ns/foo/sa/bar", &[td1, td2]),
        (&["td1"], "td1/ns/foo/sa/bar", &[td1]),
        (&["td1", "td2"], "td1/ns/foo/sa/*", &[td1, td2, baz]),
        // Foreign principals.
        (&["td1", "td2"], "other/ns/foo/sa/bar", &[other]),
        // `cluster.local` stands for the mesh's own trust domain.
        (&["td1"], "cluster.local/ns/foo/sa/bar", &[td1]),
        (&["td1", "td2"], "cluster.local/ns/foo/sa/bar", &[td1, td2]),
        (
            &["td1", "cluster.local"],
            "cluster.local/ns/foo/sa/bar",
            &[td1, local],
        ),
        (&["cluster.local"], "cluster.local/ns/foo/sa/bar", &[local]),
        (
            &["cluster.local", "td2"],
            "td2/ns/foo/sa/bar",
            &[td2, local],
        ),
        // Values that do not have five parts, or any domain, are literal.
        (&["td1", "td2"], "*", &PEERS),
        (
            &["td1", "td2"],
            "*/ns/foo/sa/bar",
            &[td1, td2, local, other, some],
        ),
        (&["td1", "td2"], "*sa/baz", &[baz]),
        (&["td1", "td2"], "td1/ns/foo/*", &[td1, baz]),
        (&["td1"], "cluster.local/ns/foo/*", &[local]),
        (&["td1", "td2"], "td1*", &[td1, baz]),
        (&["td1", "td2"], "td1", &[]),
        (&["td1", "td2"], "spiffe://td1/ns/foo/sa/bar", &[]),
        // A pattern that matches some of the mesh's domains: a suffix stands for itself and the other
        // aliases, a prefix for the aliases only.
        (&["td1", "some-td"], "*-td/ns/foo/sa/bar", &[td1, some]),
        (&["td1", "td2"], "*-td/ns/foo/sa/bar", &[some]),
        (&["td1", "td2"], "td*/ns/foo/sa/bar", &[td1, td2]),
        (&["td1"], "td*/ns/foo/sa/bar", &[td1]),
        (&["other"], "td*/ns/foo/sa/bar", &[]),
    ] {
        let found = admitted(domains, json!({"principals": [value]}), &PEERS);
        assert_eq!(found, peers, "{domains:?} {value}");
        let others: Vec<_> = PEERS
            .into_iter()
            .filter(|peer| !peers.contains(peer))
            .collect();
        let found = admitted(domains, json!({"notPrincipals": [value]}), &PEERS);
        assert_eq!(found, others, "{domains:?}, not {value}");
    }
}

#[test]
fn source_principal_is_the_same() {
    let when = json!([{"key": "source.principal", "values": ["cluster.local/ns/foo/sa/bar"]}]);
    let policies = TestMesh::new()
        .trusting(&["td1", "td2"])
        .authorize("prod/policy", json!({"rules": [{"when": when}]}))
        .policies();
    for (domain, admitted) in [("td1", true), ("td2", true), ("cluster.local", false)] {
        let caller = super::TestCaller::Foreign(domain, "foo/bar");
        assert_eq!(policies.admits(caller, 8080), admitted, "{domain}");
    }
}

#[test]
fn i13_a_principal_of_four_parts_is_not_rewritten() {
    let value = json!({"principals": ["cluster.local/ns/foo/*"]});
    let peers = ["td1/ns/foo/sa/a", "cluster.local/ns/foo/sa/a"];
    assert_eq!(admitted(&["td1"], value, &peers), [peers[1]]);
    let whole = json!({"principals": ["cluster.local/ns/foo/sa/*"]});
    assert_eq!(admitted(&["td1"], whole, &peers), [peers[0]]);
}

#[test]
fn a_trust_domain_of_the_mesh_stands_for_all_aliases() {
    let [td1, td2, local, other, baz, some] = PEERS;
    for (domains, value, peers) in [
        (&["td1", "td2"][..], "td1", &[td1, td2, baz][..]),
        (&["td1", "td2"], "td2", &[td1, td2, baz]),
        (&["td1", "td2"], "other", &[other]),
        (&["td1"], "cluster.local", &[local]),
        (&["td1", "td2"], "td*", &[td1, td2, baz]),
        (&["td1"], "*-td", &[some]),
        (&["td1", "td2"], "*1", &[td1, baz]),
        (&["td1"], "*", &PEERS),
    ] {
        let found = admitted(domains, json!({"trustDomains": [value]}), &PEERS);
        assert_eq!(found, peers, "{domains:?} {value}");
        let others: Vec<_> = PEERS
            .into_iter()
            .filter(|peer| !peers.contains(peer))
            .collect();
        let found = admitted(domains, json!({"notTrustDomains": [value]}), &PEERS);
        assert_eq!(found, others, "{domains:?}, not {value}");
    }
}

#[test]
fn namespaces_and_service_accounts_are_of_any_trust_domain() {
    for field in [
        json!({"namespaces": ["foo"]}),
        json!({"serviceAccounts": ["foo/bar", "foo/baz"]}),
    ] {
        assert_eq!(admitted(&["td1"], field, &PEERS), PEERS);
    }
}

#[test]
fn a_trust_domain_has_no_slash_and_cannot_be_matched_across_one() {
    TrustDomain::new("td1/ns").expect_err("refused");
    let value = json!({"trustDomains": ["*bar"]});
    assert_eq!(admitted(&["td1"], value, &PEERS), [""; 0]);
}
