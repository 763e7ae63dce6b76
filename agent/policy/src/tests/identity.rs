//! Principals, namespaces and ports: cases I-1 to I-13 of the manual.

use serde_json::{Value, json};

use super::TestCaller::{Foreign, Peer, Plaintext};
use super::assert_agreement;
use super::{TestCaller, TestMesh};
use crate::ConnectionVerdict;

fn from_source(action: &str, source: Value) -> TestMesh {
    let rules = json!([{"from": [{"source": source}]}]);
    TestMesh::new().authorize("prod/policy", json!({"action": action, "rules": rules}))
}

/// Checks which callers a source allows and which it refuses.
fn check(action: &str, source: Value, admitted: &[TestCaller], refused: &[TestCaller]) {
    for &caller in admitted {
        let mesh = from_source(action, source.clone());
        assert!(
            mesh.admits(caller),
            "{action} {source}: {caller:?} is refused"
        );
    }
    for &caller in refused {
        let mesh = from_source(action, source.clone());
        assert!(
            !mesh.admits(caller),
            "{action} {source}: {caller:?} is let in"
        );
    }
}

#[test]
fn i1_plaintext_has_no_namespace_that_a_negative_could_name() {
    let source = json!({"notNamespaces": ["foo"]});
    check(
        "ALLOW",
        source,
        &[Plaintext, Peer("bar/a")],
        &[Peer("foo/a")],
    );
}

#[test]
fn i2_plaintext_has_no_namespace_that_a_denial_could_name() {
    let source = json!({"namespaces": ["foo"]});
    check(
        "DENY",
        source,
        &[Plaintext, Peer("bar/a")],
        &[Peer("foo/a")],
    );
}

#[test]
fn i3_callers_without_a_principal_can_be_denied() {
    check(
        "DENY",
        json!({"notPrincipals": ["*"]}),
        &[Peer("foo/a")],
        &[Plaintext],
    );
}

#[test]
fn i4_presence_of_a_namespace_keeps_plaintext_out() {
    let source = json!({"namespaces": ["*"], "notNamespaces": ["foo"]});
    check(
        "ALLOW",
        source,
        &[Peer("bar/a")],
        &[Plaintext, Peer("foo/a")],
    );
}

#[test]
fn i5_a_suffix_denies_an_account_in_any_trust_domain() {
    check(
        "DENY",
        json!({"principals": ["*/ns/ns1/sa/foo"]}),
        &[Peer("ns1/bar"), Peer("ns2/foo"), Plaintext],
        &[Peer("ns1/foo"), Foreign("other", "ns1/foo")],
    );
}

#[test]
fn i6_a_dot_in_an_account_is_a_dot() {
    let source = json!({"serviceAccounts": ["ns/cert-manager.io"]});
    check(
        "ALLOW",
        source,
        &[
            Peer("ns/cert-manager.io"),
            Foreign("other", "ns/cert-manager.io"),
        ],
        &[
            Peer("ns/cert-manager-io"),
            Peer("ns/cert-managerxio"),
            Plaintext,
        ],
    );
}

#[test]
fn i7_a_dot_in_a_namespace_is_a_dot() {
    let source = json!({"namespaces": ["ns.prod"]});
    check(
        "ALLOW",
        source,
        &[Peer("ns.prod/a")],
        &[Peer("nsXprod/a"), Peer("ns-prod/a")],
    );
}

#[test]
fn i8_a_dot_in_a_principal_is_a_dot() {
    let source = json!({"principals": ["*admin.example"]});
    check(
        "ALLOW",
        source,
        &[Peer("a/some-admin.example")],
        &[Peer("a/some-adminXexample"), Peer("a/some-admin-example")],
    );
}

#[test]
fn i9_a_principal_is_written_without_its_scheme() {
    let peer = Peer("a/b");
    let with_scheme = json!({"principals": ["spiffe://cluster.local/ns/a/sa/b"]});
    check("ALLOW", with_scheme, &[], &[peer]);
    let without = json!({"principals": ["cluster.local/ns/a/sa/b"]});
    check("ALLOW", without, &[peer], &[Peer("a/b2"), Peer("a2/b")]);
}

#[test]
fn i10_a_service_account_is_matched_whole() {
    let source = json!({"serviceAccounts": ["my-ns/my-sa"]});
    check(
        "ALLOW",
        source,
        &[Peer("my-ns/my-sa")],
        &[
            Peer("my-ns/my-sa-suffix"),
            Peer("my-ns-suffix/my-sa"),
            Peer("my-ns/x-my-sa"),
            Peer("x-my-ns/my-sa"),
            Plaintext,
        ],
    );
    // Without a namespace it is in the policy's own.
    let bare = json!({"serviceAccounts": ["my-sa"]});
    check(
        "ALLOW",
        bare,
        &[Peer("prod/my-sa")],
        &[Peer("my-ns/my-sa"), Plaintext],
    );
    let negative = json!({"notServiceAccounts": ["my-ns/my-sa"]});
    check(
        "ALLOW",
        negative,
        &[Plaintext, Peer("my-ns/my-sa-suffix")],
        &[Peer("my-ns/my-sa")],
    );
}

#[test]
fn i13_a_prefix_of_cluster_local_is_not_rewritten() {
    // The mesh's own trust domain is cluster.local here, so the prefix matches it literally.
    let source = json!({"principals": ["cluster.local/ns/foo/*"]});
    check(
        "ALLOW",
        source,
        &[Peer("foo/a")],
        &[Foreign("td1", "foo/a")],
    );
}

#[test]
fn an_empty_rule_matches_everything_and_no_rule_nothing() {
    for (spec, admits_all) in [
        (json!({"rules": [{}]}), true),
        (json!({"rules": []}), false),
        (json!({}), false),
        (Value::Null, false),
        (json!({"action": "DENY", "rules": [{}]}), false),
    ] {
        for caller in [Plaintext, Peer("a/b")] {
            let mesh = TestMesh::new().authorize("prod/policy", spec.clone());
            assert_eq!(mesh.admits(caller), admits_all, "{spec}: {caller:?}");
        }
    }
}

#[test]
fn without_policies_everything_is_allowed() {
    assert!(TestMesh::new().admits(Plaintext));
    assert!(TestMesh::new().admits(Peer("a/b")));
}

#[test]
fn a_denial_beats_every_permission() {
    let mesh = || {
        TestMesh::new()
            .authorize("prod/allow", json!({"rules": [{}]}))
            .authorize(
                "prod/deny",
                json!({"action": "DENY", "rules": [{"from": [{"source": {"namespaces": ["foo"]}}]}]}),
            )
    };
    assert!(mesh().admits(Peer("bar/a")));
    assert!(!mesh().admits(Peer("foo/a")));
}

#[test]
fn a_rule_is_a_conjunction_of_disjunctions() {
    let policies = TestMesh::new()
        .authorize(
            "prod/policy",
            json!({"rules": [{
                "from": [{"source": {"namespaces": ["foo"]}}, {"source": {"namespaces": ["bar"]}}],
                "to": [{"operation": {"ports": ["80", "81"]}}, {"operation": {"ports": ["90"]}}],
            }]}),
        )
        .policies();
    for (caller, port, admitted) in [
        (Peer("foo/a"), 80, true),
        (Peer("bar/a"), 81, true),
        (Peer("bar/a"), 90, true),
        (Peer("baz/a"), 80, false),
        (Peer("foo/a"), 82, false),
        (Plaintext, 80, false),
    ] {
        assert_eq!(policies.admits(caller, port), admitted, "{caller:?} {port}");
    }
}

#[test]
fn a_source_is_a_conjunction() {
    let source = json!({
        "principals": ["*"], "namespaces": ["foo"], "notPrincipals": ["*/sa/b"],
        "ipBlocks": ["10.9.0.0/16"], "notIpBlocks": ["10.9.1.0/24"],
    });
    check(
        "ALLOW",
        source,
        &[Peer("foo/a")],
        &[Peer("foo/b"), Peer("bar/a"), Plaintext],
    );
    let elsewhere = json!({"namespaces": ["foo"], "ipBlocks": ["10.8.0.0/16", "::/0"]});
    check("ALLOW", elsewhere, &[], &[Peer("foo/a")]);
}

#[test]
fn t10_an_ipv4_mapped_source_is_ipv4() {
    let spec =
        json!({"action": "DENY", "rules": [{"from": [{"source": {"ipBlocks": ["10.9.0.0/16"]}}]}]});
    let policies = TestMesh::new().authorize("prod/policy", spec).policies();
    for (source, admitted) in [
        ("::ffff:10.9.0.1", false),
        ("::ffff:10.8.0.1", true),
        ("::a09:1", true),
    ] {
        let mut connection = Plaintext.calls(80);
        connection.source = source.parse().expect("valid");
        let verdict = policies.judge_connection(&connection);
        let is_allowed = matches!(verdict, ConnectionVerdict::Allow(_));
        assert_eq!(is_allowed, admitted, "{source}");
        assert_agreement(&policies, &connection);
    }
}

#[test]
fn an_ipv6_block_has_no_ipv4_address_in_it() {
    for block in ["::/0", "::/64", "::/80"] {
        check("ALLOW", json!({"ipBlocks": [block]}), &[], &[Plaintext]);
        check("DENY", json!({"ipBlocks": [block]}), &[Plaintext], &[]);
    }
    check(
        "ALLOW",
        json!({"ipBlocks": ["0.0.0.0/0"]}),
        &[Plaintext],
        &[],
    );
}
