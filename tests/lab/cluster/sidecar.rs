//! The agent of a sidecar, without its Envoy: it gets the pod's certificate, as in any Istio mesh.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use super::{Bearer, Cluster};
use crate::authority::CaEndpoint;
use crate::peers::peer;
use crate::pod::Pod;
use crate::process::Process;

/// A running `pilot-agent` in a pod.
pub struct Sidecar {
    directory: PathBuf,
    process: Process,
}

impl Sidecar {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(cluster: &Cluster<'_>, pod: &Pod, ca: &CaEndpoint) -> Result<Self> {
        let directory = tempfile::tempdir_in(cluster.lab.directory())?.keep();
        // What Istio's injection mounts, below the working directory.
        let tokens = directory.join("var/run/secrets/tokens");
        fs::create_dir_all(&tokens)?;
        fs::write(tokens.join("istio-token"), cluster.token(Bearer::pod(pod))?)?;
        let certificates = directory.join("certificates");
        fs::create_dir(&certificates)?;
        let proxy = json!({"discoveryAddress": ca.address.to_string()});
        let mut command = pod.place().command(peer("istio/pilot-agent")?)?;
        command
            .current_dir(&directory)
            .env("DISABLE_ENVOY", "true")
            // Also the address of the CA, and the only way to give its name too.
            .env("PROXY_CONFIG", proxy.to_string())
            .env("CA_ROOT_CA", &ca.roots)
            .env("XDS_ROOT_CA", &ca.roots)
            .env("POD_NAME", pod.name())
            .env("POD_NAMESPACE", pod.namespace())
            .env("ISTIOD_SAN", ca.server_name)
            .env("SERVICE_ACCOUNT", "default")
            .env("ISTIO_META_CLUSTER_ID", "Kubernetes")
            .env("OUTPUT_CERTS", &certificates)
            .args(["proxy", "sidecar", "--domain"])
            .arg(format!("{}.svc.cluster.local", pod.namespace()));
        let process = Process::start(&mut command, &cluster.lab.new_log("sidecar")?)?;
        Ok(Self { directory, process })
    }

    /// The chain that it was given, in PEM.
    ///
    /// # Errors
    ///
    /// If it gets none.
    pub fn certificate(&mut self) -> Result<String> {
        let file = self.directory.join("certificates/cert-chain.pem");
        self.process.wait_until("the sidecar's certificate", |_| {
            fs::read_to_string(&file)
                .ok()
                .filter(|text| !text.is_empty())
        })
    }
}
