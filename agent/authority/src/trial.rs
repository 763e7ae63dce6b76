//! Signs a certificate that nobody gets, and verifies it as a peer would.

use std::sync::Arc;

use rcgen::KeyPair;
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::UnixTime;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};

use super::issue::MIN_LIFETIME;
use super::signer::CertificateAuthority;
use super::subject_key::SubjectKey;
use ambit_model::WorkloadIdentity;

/// Whether what an authority signs is accepted by whoever trusts its root: encodings, constraints
/// and signatures that its own checks do not know are found here.
pub(super) fn run(authority: &CertificateAuthority) -> Result<(), String> {
    let key = KeyPair::generate().map_err(text)?;
    let domain = authority.trust_domain().clone();
    let nobody = WorkloadIdentity::new(domain, "trial", "trial").map_err(text)?;
    let issued = authority
        .issue_workload(&nobody, &SubjectKey::of(&key), MIN_LIFETIME)
        .map_err(text)?;
    let (leaf, intermediates) = issued.chain.split_first().ok_or("it is empty")?;
    let mut roots = RootCertStore::empty();
    roots.add(authority.root().clone()).map_err(text)?;
    let (roots, provider) = (Arc::new(roots), Arc::new(aws_lc_rs::default_provider()));
    let algorithms = provider.signature_verification_algorithms;
    let now = UnixTime::now();
    let parsed = ParsedCertificate::try_from(leaf).map_err(text)?;
    verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, algorithms.all)
        .map_err(text)?;
    WebPkiClientVerifier::builder_with_provider(roots, provider)
        .build()
        .map_err(text)?
        .verify_client_cert(leaf, intermediates, now)
        .map_err(text)?;
    Ok(())
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
