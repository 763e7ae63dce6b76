//! A cluster's real control plane: the API server with its store, istiod, and the agent of a sidecar.

mod api;
mod api_server;
mod ca;
mod istiod;
mod object;
mod sidecar;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::authority::agents::{AGENT, AUDIENCE, agent_manifest, agent_pod};
use crate::authority::{CaAccess, CaEndpoint};
use crate::lab::Lab;
use crate::plan::NodeName;
use crate::pod::Pod;
use crate::reference::Reference;

pub use api::Api;
pub use api_server::ApiServer;
pub use ca::{CaRights, ClusterCa};
pub use istiod::{Istiod, NodeAccounts};
pub use object::Account;
pub use sidecar::Sidecar;

/// The reference example's pods, which a real API server knows: with its nodes, and a pod of the
/// agent on each.
pub struct Cluster<'a> {
    lab: &'a Lab,
    server: ApiServer,
    mesh: Reference,
}

/// A pod that a token is bound to, and its service account.
#[derive(Clone, Copy, Debug)]
pub struct Bearer<'a> {
    /// The account.
    pub account: Account<'a>,
    /// The pod's name.
    pub pod: &'a str,
}

impl Bearer<'static> {
    /// The agent of a node.
    pub fn agent(node: NodeName) -> Self {
        Self {
            account: AGENT.into(),
            pod: agent_pod(node),
        }
    }
}

impl Bearer<'_> {
    /// A pod.
    pub fn pod(pod: &Pod) -> Self {
        Self {
            account: (pod.namespace(), "default").into(),
            pod: pod.name(),
        }
    }
}

impl<'a> Cluster<'a> {
    /// Builds the example, without agents, and starts the API server with all objects.
    ///
    /// # Errors
    ///
    /// If it does not begin to serve.
    pub fn start(lab: &'a Lab) -> Result<Self> {
        let cluster = Self {
            lab,
            mesh: Reference::build(lab)?,
            server: ApiServer::start(lab)?,
        };
        let api = cluster.api();
        api.create_account(AGENT.into())?;
        for node in NodeName::ALL {
            api.create(&object::node(node))?;
            api.create(&agent_manifest(node))?;
        }
        for pod in cluster.mesh.pods() {
            cluster.add(pod)?;
        }
        Ok(cluster)
    }

    /// The API server.
    pub fn server(&self) -> &ApiServer {
        &self.server
    }

    /// Requests to it.
    pub fn api(&self) -> &Api {
        self.server.api()
    }

    /// The example.
    pub fn mesh(&self) -> &Reference {
        &self.mesh
    }

    /// Creates a pod, with its namespace and service account.
    ///
    /// # Errors
    ///
    /// If the API server refuses it.
    pub fn add(&self, pod: &Pod) -> Result<()> {
        self.api()
            .create_account((pod.namespace(), "default").into())?;
        self.api().create(&pod.manifest())
    }

    /// A token for the certificate authorities.
    ///
    /// # Errors
    ///
    /// If the API server does not give one.
    pub fn token(&self, bearer: Bearer<'_>) -> Result<String> {
        self.token_for(bearer, &[AUDIENCE])
    }

    /// A token for an audience; for the API server itself if there is none.
    ///
    /// # Errors
    ///
    /// If the API server does not give one.
    pub fn token_for(&self, bearer: Bearer<'_>, audiences: &[&str]) -> Result<String> {
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "name": bearer.pod});
        self.api().token(bearer.account, audiences, Some(&pod))
    }

    /// Makes the agents that are started from now on get their certificates from an authority.
    fn set_authority(&self, endpoint: CaEndpoint) -> Result<()> {
        let file = |node: NodeName| -> Result<PathBuf> {
            let file = self.lab.directory().join(format!("token-{node}"));
            fs::write(&file, self.token(Bearer::agent(node))?)?;
            Ok(file)
        };
        let [a, b] = NodeName::ALL;
        let tokens = [file(a)?, file(b)?];
        self.lab
            .set_certificates_from(CaAccess { endpoint, tokens });
        Ok(())
    }
}

/// A text field of an object.
fn text<'v>(object: &'v Value, pointer: &str) -> Result<&'v str> {
    let field = object.pointer(pointer).and_then(Value::as_str);
    field.with_context(|| format!("no {pointer} in {object}"))
}
