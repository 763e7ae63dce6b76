//! `ambit ca serve` in a cluster.

use ambit_tests::ca_protocol::{PERMISSION_DENIED, UNAUTHENTICATED, UNAVAILABLE};
use ambit_tests::{
    Account, Bearer, CaRights, Cluster, ClusterCa, Lab, NodeName, PodSpec, SOON, Sidecar,
    certificate_names, eventually,
};
use anyhow::{Context, Result, ensure};

use super::{ask, ensure_carried};

/// A pod of node A.
const FRONTEND: &str = "spiffe://cluster.local/ns/frontend/sa/default";

/// A pod of node B.
const ORDERS: &str = "spiffe://cluster.local/ns/orders/sa/default";

pub(super) fn agents_get_certificates_by_reviewed_tokens(lab: &Lab) -> Result<()> {
    let cluster = Cluster::start(lab)?;
    let ca = ClusterCa::start(&cluster, CaRights::AsDocumented)?;
    let _agents = lab.start_agents()?;
    ensure_carried(lab, &cluster)?;
    let log = ca.log();
    for identity in [FRONTEND, ORDERS] {
        let name = identity.trim_start_matches("spiffe://");
        ensure!(log.contains(name), "{identity} is not in the CA's log");
    }
    Ok(())
}

pub(super) fn a_node_gets_the_identities_of_its_own_pods_only(lab: &Lab) -> Result<()> {
    let cluster = Cluster::start(lab)?;
    let ca = ClusterCa::start(&cluster, CaRights::AsDocumented)?;
    let endpoint = ca.endpoint();
    let agent = cluster.token(Bearer::agent(NodeName::A))?;
    let of_agent = |identity: &str| ask(lab, &endpoint, &agent, Some(identity));
    of_agent(FRONTEND)?.ensure_for(FRONTEND)?;
    of_agent(ORDERS)?.ensure_refused(PERMISSION_DENIED, &["ns/orders", "node-a"])?;
    // A pod has its own identity, and no other.
    let pod = cluster.token(Bearer::pod(&cluster.mesh().orders))?;
    ask(lab, &endpoint, &pod, None)?.ensure_for(ORDERS)?;
    let other = ask(lab, &endpoint, &pod, Some(FRONTEND))?;
    other.ensure_refused(PERMISSION_DENIED, &["orders/default", "node-account"])?;
    // Pods come and go.
    let late = lab.add_pod(NodeName::A, PodSpec::named("late"))?;
    let identity = "spiffe://cluster.local/ns/late/sa/default";
    let refused = || of_agent(identity)?.ensure_refused(PERMISSION_DENIED, &["ns/late", "node-a"]);
    refused()?;
    cluster.add(&late)?;
    eventually(SOON, "a certificate of a new pod", || {
        of_agent(identity).ok()?.ensure_for(identity).ok()
    })?;
    cluster.api().delete_pod(&late)?;
    eventually(SOON, "no certificate of a pod that is gone", || {
        refused().ok()
    })
}

pub(super) fn tokens_that_the_api_server_does_not_accept_are_refused(lab: &Lab) -> Result<()> {
    let cluster = Cluster::start(lab)?;
    let ca = ClusterCa::start(&cluster, CaRights::AsDocumented)?;
    let (api, endpoint) = (cluster.api(), ca.endpoint());
    let agent = Bearer::agent(NodeName::A);
    let good = cluster.token(agent)?;
    ask(lab, &endpoint, &good, Some(FRONTEND))?.ensure_for(FRONTEND)?;
    let (signed, signature) = good.rsplit_once('.').context("no signature")?;
    let other = cluster.token(Bearer::agent(NodeName::B))?;
    let (of_b, _) = other.rsplit_once('.').context("no signature")?;
    let Account { namespace, name } = agent.account;
    for (token, what, words) in [
        (
            cluster.token_for(agent, &[])?,
            "for the API server",
            &["istio-ca"][..],
        ),
        (
            cluster.token_for(agent, &["vault"])?,
            "for another audience",
            &["istio-ca"],
        ),
        (
            api.token(agent.account, &["istio-ca"], None)?,
            "bound to no pod",
            &[namespace, name, "bound"],
        ),
        (
            api.operators_token().to_owned(),
            "of no service account",
            &[],
        ),
        (
            format!("{of_b}.{signature}"),
            "with another's signature",
            &["istio-ca"],
        ),
        (format!("{signed}."), "without a signature", &["istio-ca"]),
    ] {
        let answer = ask(lab, &endpoint, &token, Some(FRONTEND))?;
        answer
            .ensure_refused(UNAUTHENTICATED, words)
            .context(what)?;
    }
    // A token ends with its pod: first because the pod is gone, and later, when the cached review has
    // expired, because the token is invalid.
    let frontend = &cluster.mesh().frontend;
    let token = cluster.token(Bearer::pod(frontend))?;
    ask(lab, &endpoint, &token, None)?.ensure_for(FRONTEND)?;
    api.delete_pod(frontend)?;
    eventually(SOON, "no certificate of a pod that is gone", || {
        let answer = ask(lab, &endpoint, &token, None).ok()?;
        let words = &["no pod frontend/frontend"];
        answer.ensure_refused(PERMISSION_DENIED, words).ok()
    })?;
    let other = eventually(SOON, "another answer than that", || {
        let answer = ask(lab, &endpoint, &token, None).ok()?;
        (answer.status() != PERMISSION_DENIED).then_some(answer)
    })?;
    other.ensure_refused(UNAUTHENTICATED, &["istio-ca"])
}

pub(super) fn an_api_server_that_is_down_is_told_of_and_heals(lab: &Lab) -> Result<()> {
    let cluster = Cluster::start(lab)?;
    let ca = ClusterCa::start(&cluster, CaRights::AsDocumented)?;
    let endpoint = ca.endpoint();
    let token = cluster.token(Bearer::agent(NodeName::A))?;
    let of_agent = || ask(lab, &endpoint, &token, Some(FRONTEND));
    cluster.server().kill()?;
    of_agent()?.ensure_refused(UNAVAILABLE, &["API server"])?;
    cluster.server().restart()?;
    eventually(SOON, "a certificate", || {
        of_agent().ok()?.ensure_for(FRONTEND).ok()
    })
}

pub(super) fn a_ca_without_rights_says_which(lab: &Lab) -> Result<()> {
    let cluster = Cluster::start(lab)?;
    let ca = ClusterCa::start(&cluster, CaRights::PodsOnly)?;
    let token = cluster.token(Bearer::agent(NodeName::A))?;
    let answer = ask(lab, &ca.endpoint(), &token, Some(FRONTEND))?;
    answer.ensure_refused(UNAVAILABLE, &["403", "create tokenreviews"])
}

pub(super) fn published_keys_prove_the_same_tokens(lab: &Lab) -> Result<()> {
    let cluster = Cluster::start(lab)?;
    let ca = ClusterCa::start_offline(&cluster)?;
    let endpoint = ca.endpoint();
    let token = cluster.token(Bearer::agent(NodeName::A))?;
    ask(lab, &endpoint, &token, Some(FRONTEND))?.ensure_for(FRONTEND)?;
    let answer = ask(lab, &endpoint, &token, Some(ORDERS))?;
    answer.ensure_refused(PERMISSION_DENIED, &["ns/orders", "node-a"])?;
    let elsewhere = cluster.token_for(Bearer::agent(NodeName::A), &["vault"])?;
    let answer = ask(lab, &endpoint, &elsewhere, Some(FRONTEND))?;
    answer.ensure_refused(UNAUTHENTICATED, &[])
}

pub(super) fn a_sidecar_gets_its_certificate(lab: &Lab) -> Result<()> {
    let cluster = Cluster::start(lab)?;
    let ca = ClusterCa::start(&cluster, CaRights::AsDocumented)?;
    // Out of the mesh: a sidecar's pod is never enrolled.
    let pod = &cluster.mesh().intruder;
    let mut sidecar = Sidecar::start(&cluster, pod, &ca.endpoint())?;
    let chain = sidecar.certificate()?;
    let name = certificate_names(&chain)?;
    ensure!(
        name == ["spiffe://cluster.local/ns/intruder/sa/default"],
        "{name:?}"
    );
    Ok(())
}
