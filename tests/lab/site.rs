//! Web servers behind policies: what the tests of requests call.

use anyhow::{Context, Result};
use serde_json::json;

use crate::agent::Agent;
use crate::lab::Lab;
use crate::plan::NodeName;
use crate::pod::{Membership, Pod, PodSpec};
use crate::service::Service;
use crate::web::WebServer;

const NAMESPACE: &str = "web";

/// Pods of the namespace `web` on node B, each with its own policies, and two callers on node A.
/// Plaintext is permitted.
pub struct Site {
    /// In the mesh, as `cluster.local/ns/caller/sa/default`.
    pub caller: Pod,
    /// Not in the mesh.
    pub outsider: Pod,
    /// Both agents.
    pub agents: [Agent; 2],
    backends: Vec<Backend>,
}

/// One of its pods.
pub struct Backend {
    /// The pod.
    pub pod: Pod,
    /// Port 80 in front of it, which is declared as HTTP.
    pub service: Service,
    /// What runs in it, on [`Site::PORT`] and [`Site::UNDECLARED_PORT`].
    pub web: WebServer,
}

impl Site {
    /// The port that the Service declares.
    pub const PORT: u16 = 8080;

    /// A port that no Service has.
    pub const UNDECLARED_PORT: u16 = 9090;

    /// The caller's principal.
    pub const CALLER: &str = "cluster.local/ns/caller/sa/default";

    /// Builds the pods, each with its name and the specs of its policies, writes their configuration
    /// and starts the agents. Further objects are written before.
    ///
    /// # Errors
    ///
    /// If something does not start.
    pub fn start(lab: &Lab, backends: &[(&'static str, &[&str])]) -> Result<Self> {
        let caller = lab.add_pod(NodeName::A, PodSpec::named("caller"))?;
        let outsider = lab.add_pod(NodeName::A, PodSpec::named("outsider"))?;
        let manifests = lab.manifests();
        manifests.write_namespace("caller", Membership::Ambient)?;
        manifests.write_namespace("outsider", Membership::None)?;
        manifests.write_namespace(NAMESPACE, Membership::Ambient)?;
        manifests.write_pod(&caller)?;
        manifests.write_pod(&outsider)?;
        let backends = backends
            .iter()
            .map(|(name, specs)| Backend::build(lab, name, specs))
            .collect::<Result<_>>()?;
        Ok(Self {
            caller,
            outsider,
            agents: lab.start_agents()?,
            backends,
        })
    }

    /// Declares the protocol of another port of a pod, by a Service without an address. Before
    /// [`Site::start`].
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn declare(lab: &Lab, name: &str, port: u16, protocol: &str) -> Result<()> {
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": NAMESPACE, "name": format!("{name}-{port}")},
            "spec": {
                "selector": {"app": name},
                "clusterIP": "None",
                "ports": [{"protocol": "TCP", "port": port, "appProtocol": protocol}],
            },
        });
        let file = format!("service-{name}-{port}.yaml");
        lab.manifests().write_object(&file, &service)
    }

    /// A pod by its name.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn backend(&self, name: &str) -> Result<&Backend> {
        let mut backends = self.backends.iter();
        let found = backends.find(|backend| backend.pod.name() == name);
        found.with_context(|| format!("no pod {name}"))
    }

    /// Replaces the policies of a pod.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    pub fn set_policies(lab: &Lab, name: &str, specs: &[&str]) -> Result<()> {
        let policies = specs.iter().enumerate().map(|(index, spec)| {
            let spec = spec.replace('\n', "\n  ");
            format!(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                 metadata: {{name: {name}-{index}, namespace: {NAMESPACE}}}\nspec:\n  \
                 selector: {{matchLabels: {{app: {name}}}}}\n  {spec}\n"
            )
        });
        let text = policies.collect::<Vec<_>>().join("---\n");
        let file = format!("policies-{name}.yaml");
        let manifests = lab.manifests();
        match specs {
            // An empty file is refused.
            [] if manifests.directory().join(&file).exists() => manifests.remove(&file),
            [] => Ok(()),
            _ => manifests.write(&file, &text),
        }
    }
}

impl Backend {
    fn build(lab: &Lab, name: &'static str, specs: &[&str]) -> Result<Self> {
        let spec = PodSpec {
            namespace: NAMESPACE,
            ..PodSpec::named(name)
        };
        let pod = lab.add_pod(NodeName::B, spec)?;
        let service = lab.add_service(&pod, 80, Site::PORT)?.speaking("http");
        lab.manifests().write_pod(&pod)?;
        lab.manifests().write_service(&service)?;
        Site::set_policies(lab, name, specs)?;
        let web = WebServer::in_pod(lab, &pod, &[Site::PORT, Site::UNDECLARED_PORT])?;
        Ok(Self { pod, service, web })
    }
}
