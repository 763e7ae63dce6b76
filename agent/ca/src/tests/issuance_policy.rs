//! Who may have which identity, case by case.

use super::{AGENT, account, agent, caller, pod, pods, sidecar};
use crate::caller::{AuthenticatedCaller, BoundPod};
use crate::issuance::{IssuanceDenied, IssuancePolicy, RequestedIdentity};
use crate::pods::KnownPod;
use ambit_model::{ObjectName, TrustDomain, WorkloadIdentity};

fn rules() -> IssuancePolicy {
    IssuancePolicy {
        trust_domain: TrustDomain::new("cluster.local").expect("valid"),
        node_accounts: [account(AGENT)].into(),
    }
}

fn identity(principal: &str) -> WorkloadIdentity {
    principal.parse().expect("an identity")
}

fn web() -> RequestedIdentity {
    RequestedIdentity::Of(identity("cluster.local/ns/shop/sa/web"))
}

fn judge(
    caller: &AuthenticatedCaller,
    asked: &RequestedIdentity,
) -> Result<String, IssuanceDenied> {
    let given = rules().authorize(caller, asked, &pods())?;
    Ok(given.principal().to_owned())
}

#[test]
fn each_caller_may_have_its_own_identity() {
    for (account, name, node, principal) in [
        (
            "shop/web",
            "web-0",
            Some("node-1"),
            "cluster.local/ns/shop/sa/web",
        ),
        ("shop/web", "web-0", None, "cluster.local/ns/shop/sa/web"),
        (
            AGENT,
            "agent-2",
            Some("node-2"),
            "cluster.local/ns/mesh/sa/agent",
        ),
    ] {
        let given = judge(&caller(account, name, node), &RequestedIdentity::Own);
        assert_eq!(given.as_deref(), Ok(principal));
    }
}

#[test]
fn an_agent_may_have_the_identities_of_its_node_and_no_others() {
    for (principal, is_given) in [
        ("cluster.local/ns/shop/sa/web", true),
        ("cluster.local/ns/mesh/sa/agent", true),
        ("cluster.local/ns/shop/sa/db", false),
        ("cluster.local/ns/shop/sa/agent", false),
        ("cluster.local/ns/mesh/sa/web", false),
        ("cluster.local/ns/shop/sa/Web", false),
        ("cluster.local/ns/shop/sa/web.", false),
        ("cluster.local/ns/nowhere/sa/nobody", false),
    ] {
        let asked = RequestedIdentity::Of(identity(principal));
        // If the token does not name a node, the agent's pod does.
        for node in [Some("node-1"), None] {
            let given = judge(&caller(AGENT, "agent-1", node), &asked);
            match is_given {
                true => assert_eq!(given.as_deref(), Ok(principal)),
                false => assert!(
                    matches!(given, Err(IssuanceDenied::NotOnNode { .. })),
                    "{given:?}"
                ),
            }
        }
    }
}

#[test]
fn other_trust_domains_are_refused() {
    for principal in [
        "other.example/ns/shop/sa/web",
        "cluster.local.example/ns/shop/sa/web",
        "cluster/ns/shop/sa/web",
    ] {
        let given = judge(&agent(), &RequestedIdentity::Of(identity(principal)));
        assert!(
            matches!(given, Err(IssuanceDenied::OtherTrustDomain { .. })),
            "{given:?}"
        );
    }
}

#[test]
fn other_callers_may_not_request_any_identity_explicitly() {
    let error = judge(&sidecar(), &web()).expect_err("refused");
    assert!(matches!(error, IssuanceDenied::NotANodeAccount { .. }));
    assert!(error.to_string().contains("--node-account shop/web"));
    let nobody_trusted = IssuancePolicy {
        node_accounts: Default::default(),
        ..rules()
    };
    let given = nobody_trusted.authorize(&agent(), &web(), &pods());
    assert!(matches!(given, Err(IssuanceDenied::NotANodeAccount { .. })));
    // An account with the agents' name in another namespace, on the same node.
    let mut with_impostor = pods();
    with_impostor.put(pod("shop/agent", "agent-1", "node-1"));
    let impostor = caller("shop/agent", "agent-1", Some("node-1"));
    let given = rules().authorize(&impostor, &web(), &with_impostor);
    assert!(matches!(given, Err(IssuanceDenied::NotANodeAccount { .. })));
}

#[test]
fn the_callers_pod_must_match_its_token() {
    let elsewhere = caller(AGENT, "agent-1", Some("node-2"));
    let gone = caller(AGENT, "agent-3", Some("node-1"));
    let of_another = caller(AGENT, "web-0", Some("node-1"));
    let replaced = AuthenticatedCaller {
        pod: BoundPod {
            uid: "former".into(),
            ..agent().pod
        },
        ..agent()
    };
    for asked in [RequestedIdentity::Own, web()] {
        let denied = |caller: &AuthenticatedCaller| judge(caller, &asked).expect_err("refused");
        assert!(matches!(
            denied(&elsewhere),
            IssuanceDenied::OtherNode { .. }
        ));
        assert!(matches!(denied(&gone), IssuanceDenied::NoSuchPod { .. }));
        assert!(matches!(
            denied(&of_another),
            IssuanceDenied::NoSuchPod { .. }
        ));
        assert!(matches!(denied(&replaced), IssuanceDenied::Replaced { .. }));
    }
}

#[test]
fn a_pod_of_another_account_is_not_the_caller() {
    let mut pods = pods();
    pods.put(pod("mesh/other", "agent-1", "node-1"));
    let given = rules().authorize(&agent(), &web(), &pods);
    assert!(
        matches!(given, Err(IssuanceDenied::OtherAccount { .. })),
        "{given:?}"
    );
}

#[test]
fn a_pod_without_uid_is_matched_by_its_name() {
    let mut pods = pods();
    pods.put(KnownPod {
        uid: None,
        ..pod(AGENT, "agent-1", "node-1")
    });
    assert!(rules().authorize(&agent(), &web(), &pods).is_ok());
}

#[test]
fn a_pod_that_is_not_scheduled_is_on_no_node() {
    let mut pods = pods();
    pods.put(KnownPod {
        node: None,
        ..pod(AGENT, "agent-1", "")
    });
    for node in [None, Some("node-1")] {
        let given = rules().authorize(&caller(AGENT, "agent-1", node), &web(), &pods);
        assert!(
            matches!(given, Err(IssuanceDenied::NodeUnknown { .. })),
            "{given:?}"
        );
    }
}

#[test]
fn an_identity_leaves_a_node_with_its_last_pod() {
    let mut pods = pods();
    assert!(rules().authorize(&agent(), &web(), &pods).is_ok());
    pods.put(pod("shop/web", "web-0", "node-2"));
    let given = rules().authorize(&agent(), &web(), &pods);
    assert!(matches!(given, Err(IssuanceDenied::NotOnNode { .. })));
    pods.remove(&ObjectName::new("shop", "web-0"));
    assert!(rules().authorize(&agent(), &web(), &pods).is_err());
}
