//! A running istiod, of which only the certificate authority matters here.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::Cluster;
use crate::agent::ambit;
use crate::authority::CaEndpoint;
use crate::authority::agents::AGENT;
use crate::peers::peer;
use crate::plan::{Family, NodeName};
use crate::process::Process;

const NAMESPACE: &str = "istio-system";
const PORT: u16 = 15012;
const DNS_NAME: &str = "istiod.istio-system.svc";

/// Who may ask istiod for other identities.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeAccounts {
    /// The agents.
    Agents,
    /// None, which is the default.
    None,
}

/// A running `pilot-discovery`, which signs with an authority that `ambit ca init` has made.
pub struct Istiod {
    directory: PathBuf,
    _process: Process,
}

impl Istiod {
    /// Starts it, and makes the agents that are started from now on get their certificates from it.
    ///
    /// # Errors
    ///
    /// If it does not begin to serve.
    pub fn start(cluster: &Cluster<'_>, accounts: NodeAccounts) -> Result<Self> {
        let directory = cluster.lab.directory().join("istiod");
        if !directory.exists() {
            fs::create_dir(&directory)?;
            make_authority(&directory)?;
            cluster.api().create_account((NAMESPACE, "istiod").into())?;
        }
        let mut command = cluster
            .lab
            .observer(NodeName::B)?
            .command(peer("istio/pilot-discovery")?)?;
        command
            .current_dir(&directory)
            .env("ROOT_CA_DIR", directory.join("cacerts"))
            .env("POD_NAMESPACE", NAMESPACE)
            .env("INJECT_ENABLED", "false")
            .args(["discovery", "--namespace", NAMESPACE, "--kubeconfig"])
            .arg(cluster.api().kubeconfig()?)
            .args(["--secureGRPCAddr", &address().to_string()])
            .args(["--grpcAddr", "127.0.0.1:15010"])
            .args(["--httpAddr", "127.0.0.1:8080", "--httpsAddr", ""])
            .args(["--monitoringAddr", "127.0.0.1:15014"]);
        if accounts == NodeAccounts::Agents {
            let (namespace, name) = AGENT;
            command.env("CA_TRUSTED_NODE_ACCOUNTS", format!("{namespace}/{name}"));
        }
        let mut process = Process::start(&mut command, &cluster.lab.new_log("istiod")?)?;
        process.wait_for_line("istiod serving", |line| {
            line.contains("starting secure gRPC discovery service")
                .then_some(())
        })?;
        let istiod = Self {
            directory,
            _process: process,
        };
        cluster.set_authority(istiod.endpoint())?;
        Ok(istiod)
    }

    /// How it is reached.
    pub fn endpoint(&self) -> CaEndpoint {
        CaEndpoint {
            address: address(),
            server_name: DNS_NAME,
            roots: self.directory.join("cacerts/root-cert.pem"),
        }
    }
}

fn address() -> SocketAddr {
    (NodeName::B.link_addresses().of(Family::V4), PORT).into()
}

/// A root, and the intermediate authority that istiod signs by, in Istio's own layout.
fn make_authority(directory: &Path) -> Result<()> {
    let path = |name: &str| directory.join(name).display().to_string();
    let (root, own) = (path("root"), path("cacerts"));
    for arguments in [
        &["ca", "init", "--dir", &root][..],
        &["ca", "init", "--dir", &own, "--root", &root],
    ] {
        let made = ambit(arguments)?;
        ensure!(made.status.success(), "{arguments:?}: {}", made.stderr);
    }
    Ok(())
}
