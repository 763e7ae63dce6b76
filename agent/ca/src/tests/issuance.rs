//! Which certificates are issued to whom.

use std::time::Instant;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tonic::Code;
use x509_parser::extensions::GeneralName;

use super::ca::{DEFAULT, LONGEST, TestCa, seconds};
use super::{agent, pod, sidecar};
use crate::audit::CaCounts;
use crate::pods::PodDirectory;
use crate::tests::ca::Ask;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const DB: &str = "spiffe://cluster.local/ns/shop/sa/db";

/// The identity of a chain's leaf, and when it expires.
fn leaf(chain: &[String]) -> (String, u64) {
    let der = CertificateDer::from_pem_slice(chain[0].as_bytes()).expect("PEM");
    let (_, leaf) = x509_parser::parse_x509_certificate(&der).expect("a certificate");
    let names = leaf
        .subject_alternative_name()
        .expect("readable")
        .expect("there");
    let [GeneralName::URI(id)] = names.value.general_names[..] else {
        panic!("{names:?}")
    };
    let end = leaf.validity().not_after.timestamp();
    (id.to_owned(), end.try_into().expect("after 1970"))
}

#[tokio::test]
async fn a_sidecar_gets_its_own_identity_followed_by_the_roots() {
    let ca = TestCa::start().await;
    let token = ca.token(&sidecar());
    let chain = ca.client().await.ask(&Ask::own(&token)).await.unwrap();
    assert_eq!(leaf(&chain).0, WEB);
    let (roots, certificates) = chain.split_last().unwrap();
    let roots: Vec<_> = CertificateDer::pem_slice_iter(roots.as_bytes())
        .map(Result::unwrap)
        .collect();
    assert_eq!(roots, ca.roots());
    assert_eq!(certificates.len(), 1);
}

#[tokio::test]
async fn a_nodes_agent_gets_the_identities_of_its_pods_and_no_others() {
    let ca = TestCa::start().await;
    let (client, token) = (ca.client().await, ca.token(&agent()));
    let chain = client.ask(&Ask::impersonating(&token, WEB)).await.unwrap();
    assert_eq!(leaf(&chain).0, WEB);
    let (code, reason) = client.refused(&Ask::impersonating(&token, DB)).await;
    assert_eq!(code, Code::PermissionDenied);
    assert!(
        reason.contains("no pod of cluster.local/ns/shop/sa/db"),
        "{reason}"
    );
    let of_other_domain = WEB.replace("cluster.local", "other.example");
    let ask = Ask::impersonating(&token, &of_other_domain);
    assert_eq!(client.refused(&ask).await.0, Code::PermissionDenied);
    let counts = CaCounts {
        issued: 1,
        denied: 2,
        ..CaCounts::default()
    };
    assert_eq!(ca.service.audit.counts(), counts);
}

#[tokio::test]
async fn an_account_that_is_not_a_node_account_gets_its_own_identity_only() {
    let ca = TestCa::start().await;
    let (client, token) = (ca.client().await, ca.token(&sidecar()));
    let (code, reason) = client.refused(&Ask::impersonating(&token, WEB)).await;
    assert_eq!(code, Code::PermissionDenied);
    assert!(reason.contains("--node-account shop/web"), "{reason}");
    assert!(client.ask(&Ask::own(&token)).await.is_ok());
}

#[tokio::test]
async fn the_node_must_be_that_of_the_callers_pod() {
    let ca = TestCa::start().await;
    let client = ca.client().await;
    let mut on_no_node = agent();
    on_no_node.node = None;
    // The agent's pod says which node it is on. The other pod is on another one.
    let token = ca.token(&on_no_node);
    assert!(client.ask(&Ask::impersonating(&token, WEB)).await.is_ok());
    let (code, _) = client.refused(&Ask::impersonating(&token, DB)).await;
    assert_eq!(code, Code::PermissionDenied);
    let mut elsewhere = agent();
    elsewhere.node = Some("node-2".into());
    let token = ca.token(&elsewhere);
    for id in [WEB, DB] {
        let (code, reason) = client.refused(&Ask::impersonating(&token, id)).await;
        assert_eq!(code, Code::PermissionDenied);
        assert!(reason.contains("runs on the node"), "{reason}");
    }
}

#[tokio::test]
async fn an_agent_without_a_node_gets_no_identity_of_a_pod() {
    let mut unscheduled = pod("mesh/agent", "agent-1", "");
    unscheduled.node = None;
    let ca = TestCa::start_with(|settings| {
        let mut pods = super::pods();
        pods.put(unscheduled);
        settings.pods.replace(pods);
    })
    .await;
    let mut on_no_node = agent();
    on_no_node.node = None;
    let ask = Ask::impersonating(&ca.token(&on_no_node), WEB);
    let (code, reason) = ca.client().await.refused(&ask).await;
    assert_eq!(code, Code::PermissionDenied);
    assert!(reason.contains("not known which node"), "{reason}");
}

#[tokio::test]
async fn nothing_is_issued_before_the_pods_are_known() {
    let ca = TestCa::start_with(|settings| settings.pods = PodDirectory::default()).await;
    let client = ca.client().await;
    for ask in [
        Ask::own(&ca.token(&sidecar())),
        Ask::impersonating(&ca.token(&agent()), WEB),
    ] {
        assert_eq!(client.refused(&ask).await.0, Code::Unavailable);
    }
}

#[tokio::test]
async fn lifetimes_are_capped() {
    let ca = TestCa::start().await;
    let (client, token) = (ca.client().await, ca.token(&sidecar()));
    let (default, longest) = (DEFAULT.as_secs(), LONGEST.as_secs());
    for (asked, given) in [
        (0, default),
        (-1, default),
        (i64::MIN, default),
        (60, 60),
        (3601, longest),
        (i64::MAX, longest),
    ] {
        let before = seconds();
        let chain = client.ask(&Ask::own(&token).lasting(asked)).await.unwrap();
        let allowed = before + given..=seconds() + given;
        assert!(allowed.contains(&leaf(&chain).1), "{asked}");
    }
}

#[tokio::test]
async fn a_caller_that_asks_too_often_is_told_when_to_try_again() {
    let ca = TestCa::start_with(|settings| settings.burst = 2).await;
    let (client, token) = (ca.client().await, ca.token(&agent()));
    let started = Instant::now();
    let mut unlimited = 0;
    // Refused requests count like granted ones.
    for identity in [WEB, DB].into_iter().cycle().take(10) {
        match client.ask(&Ask::impersonating(&token, identity)).await {
            Err(status) if status.code() == Code::ResourceExhausted => {
                assert!(status.message().contains("try again in"), "{status}");
            }
            _ => unlimited += 1,
        }
    }
    let due = 2 + started.elapsed().as_secs();
    assert!((1..=due).contains(&unlimited), "{unlimited} of {due}");
    let other = Ask::own(&ca.token(&sidecar()));
    assert!(client.ask(&other).await.is_ok());
}
