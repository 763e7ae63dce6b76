//! Certificates in a cluster whose control plane is the real one: `ambit ca serve` with tokens that the
//! API server reviews, istiod as the agents' authority, and a sidecar as a caller of ours.

mod authority;
mod istiod;

use std::process::ExitCode;

use ambit_tests::{
    CaAnswer, CaCall, CaEndpoint, Cluster, Lab, LabServer, Mode, NodeName, Reference, get_from,
    run_tests, signing_request, tests,
};
use anyhow::{Result, ensure};

use authority::{
    a_ca_without_rights_says_which, a_node_gets_the_identities_of_its_own_pods_only,
    a_sidecar_gets_its_certificate, agents_get_certificates_by_reviewed_tokens,
    an_api_server_that_is_down_is_told_of_and_heals, published_keys_prove_the_same_tokens,
    tokens_that_the_api_server_does_not_accept_are_refused,
};
use istiod::{
    agents_get_certificates_of_istiod, an_account_that_istiod_does_not_trust_is_told_how,
    certificates_of_istiod_are_renewed,
};

const PORT: u16 = Reference::PORT;

fn main() -> ExitCode {
    run_tests(tests![
        agents_get_certificates_by_reviewed_tokens,
        a_node_gets_the_identities_of_its_own_pods_only,
        tokens_that_the_api_server_does_not_accept_are_refused,
        an_api_server_that_is_down_is_told_of_and_heals,
        a_ca_without_rights_says_which,
        published_keys_prove_the_same_tokens,
        a_sidecar_gets_its_certificate,
        agents_get_certificates_of_istiod,
        certificates_of_istiod_are_renewed,
        an_account_that_istiod_does_not_trust_is_told_how,
    ])
}

/// Asks for a certificate with a token.
fn ask(lab: &Lab, ca: &CaEndpoint, token: &str, identity: Option<&str>) -> Result<CaAnswer> {
    let call = CaCall {
        headers: &[format!("authorization: Bearer {token}")],
        request: &signing_request(&[])?,
        seconds: 600,
        identity,
    };
    call.make(lab, &lab.node(NodeName::A)?, ca)
}

/// Checks that the mesh carries a call, which takes a certificate on each node.
fn ensure_carried(lab: &Lab, cluster: &Cluster<'_>) -> Result<()> {
    let mesh = cluster.mesh();
    let _server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    let reply = get_from(mesh.frontend.place(), mesh.orders.at(PORT))?;
    ensure!(reply.is_answer(), "{reply:?}");
    Ok(())
}
