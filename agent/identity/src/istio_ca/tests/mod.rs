//! The client, against a CA on loopback.

mod answers;
mod roots;
mod server;
mod verification;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use super::{IstioCa, IstioCaConfig};
use crate::issued::IssuedCertificate;
use crate::provider::{CertificateProvider, IssueFailure};
use crate::tests::{HOUR, Root, identity, trust};
use server::{CaServer, Reply};

/// The name that the CA must prove.
const NAME: &str = "istiod.istio-system.svc";

/// A client, and the CA that it asks.
struct Scene {
    server: CaServer,
    /// The root of the CA's own certificate.
    server_root: Root,
    files: TempDir,
    ca: IstioCa,
}

impl Scene {
    async fn start(reply: Reply) -> Self {
        Self::named(NAME, reply).await
    }

    /// A CA with a certificate for another name.
    async fn named(name: &str, reply: Reply) -> Self {
        let server_root = Root::make();
        let server = CaServer::start(&server_root, name, reply).await;
        let files = tempfile::tempdir().unwrap();
        let config = config(&server, &files);
        fs::write(&config.root, &server_root.pem).unwrap();
        fs::write(&config.token, "first\n").unwrap();
        let ca = IstioCa::new(config, trust(&[])).unwrap();
        Self {
            server,
            server_root,
            files,
            ca,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Requests a certificate for `web`.
    async fn ask(&self) -> Result<IssuedCertificate, IssueFailure> {
        self.ca.issue(&identity("web"), HOUR).await
    }

    async fn refused(&self) -> IssueFailure {
        self.ask().await.expect_err("a refusal")
    }

    /// The tokens that the CA has received.
    fn tokens(&self) -> Vec<String> {
        let requests = self.server.requests().into_iter();
        let tokens = requests.map(|(headers, _)| headers["authorization"].to_str().unwrap().into());
        tokens.collect()
    }
}

fn config(server: &CaServer, files: &TempDir) -> IstioCaConfig {
    let address = format!("https://{}", server.address);
    let address: super::CaAddress = address.parse().unwrap();
    IstioCaConfig {
        address: address.verified_as(NAME).unwrap(),
        root: files.path().join("root.pem"),
        token: files.path().join("token"),
        cluster_id: "Kubernetes".to_owned(),
        trust_roots: None,
    }
}

/// A correct answer.
fn good(root: &Arc<Root>) -> Reply {
    Reply::Certificate {
        signer: Arc::clone(root),
        roots: root.pem.clone(),
    }
}
