//! `ambit ca sign`.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::cli::output::Output;
use ambit_authority::{CertificateAuthority, SubjectKey, encode_pem};
use ambit_model::WorkloadIdentity;

/// What to sign.
#[derive(clap::Args)]
pub(super) struct SignArguments {
    /// The CA's files, in Istio's cacerts layout.
    #[arg(long)]
    dir: PathBuf,
    /// A certificate signing request in PEM, or - for the standard input. Only its key counts.
    #[arg(long, value_name = "FILE")]
    csr: PathBuf,
    /// The identity of the certificate: spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT.
    #[arg(long, value_name = "SPIFFE ID", value_parser = WorkloadIdentity::from_spiffe_id)]
    identity: WorkloadIdentity,
    /// How long it is valid, in seconds; never longer than the CA's own certificates.
    #[arg(long, default_value_t = 86_400)]
    lifetime: u64,
    /// Print the leaf and the intermediates only.
    #[arg(long)]
    without_root: bool,
}

impl SignArguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let request =
            request(&self.csr).with_context(|| format!("{} cannot be read", self.csr.display()))?;
        Output::lines(self.sign(&request)?.lines()).print()
    }

    /// The chain in PEM: leaf first, root last.
    fn sign(&self, request: &[u8]) -> anyhow::Result<String> {
        let key = SubjectKey::from_csr_pem(request)?;
        let authority = CertificateAuthority::open(&self.dir, self.identity.trust_domain())?;
        let lifetime = Duration::from_secs(self.lifetime);
        let mut chain = authority
            .issue_workload(&self.identity, &key, lifetime)?
            .chain;
        if !self.without_root {
            chain.push(authority.root().clone());
        }
        Ok(encode_pem(&chain))
    }
}

fn request(path: &Path) -> io::Result<Vec<u8>> {
    if path != Path::new("-") {
        return fs::read(path);
    }
    let mut request = Vec::new();
    io::stdin().read_to_end(&mut request)?;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use ambit_authority::{INTERMEDIATE_LIFETIME, ROOT_LIFETIME, make_intermediate, make_root};

    #[test]
    fn the_chain_is_printed_from_leaf_to_root() {
        let directory = tempfile::tempdir().unwrap();
        let (root, below) = (directory.path().join("root"), directory.path().join("ca"));
        let identity = "spiffe://cluster.local/ns/web/sa/frontend";
        let identity = WorkloadIdentity::from_spiffe_id(identity).unwrap();
        let made = make_root(&root, identity.trust_domain(), ROOT_LIFETIME).unwrap();
        make_intermediate(&below, &made, INTERMEDIATE_LIFETIME).unwrap();
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default().serialize_request(&key);
        let request = request.unwrap().pem().unwrap();
        let mut sign = SignArguments {
            dir: below,
            csr: PathBuf::from("-"),
            identity,
            lifetime: 60,
            without_root: false,
        };
        let chain = sign.sign(request.as_bytes()).unwrap();
        assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 3, "{chain}");
        let root = encode_pem(std::slice::from_ref(made.root()));
        assert!(chain.ends_with(&root), "{chain}");
        sign.without_root = true;
        let chain = sign.sign(request.as_bytes()).unwrap();
        assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2, "{chain}");
        let foreign = "spiffe://other.example/ns/web/sa/frontend";
        sign.identity = WorkloadIdentity::from_spiffe_id(foreign).unwrap();
        let error = sign.sign(request.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("trust domain"), "{error}");
    }
}
