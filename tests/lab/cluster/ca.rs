//! `ambit ca serve` as a pod of the cluster: it asks the API server who its callers are, and where pods run.

use std::fs;

use anyhow::Result;
use serde_json::{Value, json};

use super::Cluster;
use super::object::Account;
use crate::authority::agents::ISSUER;
use crate::authority::{self, CaEndpoint, CaFiles};
use crate::plan::NodeName;
use crate::process::Process;

/// Its own service account.
const ACCOUNT: Account<'static> = Account {
    namespace: "ambit-system",
    name: "ambit-ca",
};

/// What its account may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CaRights {
    /// The rights that the README names.
    AsDocumented,
    /// To see pods, but not to have tokens reviewed.
    PodsOnly,
}

impl CaRights {
    fn rules(self) -> Value {
        let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]});
        let reviews = json!({
            "apiGroups": ["authentication.k8s.io"],
            "resources": ["tokenreviews"],
            "verbs": ["create"],
        });
        match self {
            Self::AsDocumented => json!([pods, reviews]),
            Self::PodsOnly => json!([pods]),
        }
    }
}

/// A running `ambit ca serve`.
pub struct ClusterCa {
    files: CaFiles,
    process: Process,
}

impl ClusterCa {
    /// Starts it, and makes the agents that are started from now on get their certificates from it.
    /// It knows the cluster's pods.
    ///
    /// # Errors
    ///
    /// If it does not begin to serve.
    pub fn start(cluster: &Cluster<'_>, rights: CaRights) -> Result<Self> {
        let api = cluster.api();
        api.create_account(ACCOUNT)?;
        api.allow(ACCOUNT, &rights.rules())?;
        let mut ca = Self::start_with(cluster, &api.as_pod_of(ACCOUNT)?, &[])?;
        ca.process.wait_for_line("the pods being known", |line| {
            line.contains("the pods of the cluster are known")
                .then_some(())
        })?;
        Ok(ca)
    }

    /// Starts it with the keys that the API server publishes, and files that say where pods run.
    ///
    /// # Errors
    ///
    /// If it does not begin to serve.
    pub fn start_offline(cluster: &Cluster<'_>) -> Result<Self> {
        let keys = cluster.lab.directory().join("published.json");
        fs::write(&keys, cluster.api().published_keys()?.to_string())?;
        let manifests = cluster.lab.manifests();
        for node in NodeName::ALL {
            let pod = authority::agents::agent_manifest(node);
            manifests.write_object(&format!("agent-{node}.yaml"), &pod)?;
        }
        let directory = manifests.directory().display().to_string();
        let keys = keys.display().to_string();
        let options = [
            "--jwks",
            &keys,
            "--issuer",
            ISSUER,
            "--config-dir",
            &directory,
        ];
        Self::start_with(cluster, &[], &options.map(str::to_owned))
    }

    fn start_with(cluster: &Cluster<'_>, wrapper: &[String], options: &[String]) -> Result<Self> {
        let files = CaFiles::make(&cluster.lab.directory())?;
        let process = authority::launch(cluster.lab, &files, wrapper, options)?;
        let ca = Self { files, process };
        cluster.set_authority(ca.endpoint())?;
        Ok(ca)
    }

    /// How it is reached.
    pub fn endpoint(&self) -> CaEndpoint {
        authority::endpoint(&self.files)
    }

    /// Its log.
    pub fn log(&self) -> String {
        self.process.log()
    }
}
