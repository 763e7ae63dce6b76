//! The reference example: `frontend` calls `orders`, `orders` calls `payments`, no one else calls
//! anyone, and `intruder` is not in the mesh.

mod application;
mod call;

use anyhow::Result;

use crate::agent::Agent;
use crate::lab::Lab;
use crate::plan::NodeName;
use crate::pod::{Membership, Pod, PodSpec};
use crate::service::Service;

pub use application::{Application, PAYLOADS};
pub use call::{Call, Decider, Expected};

/// The mesh's trust domain.
pub const TRUST_DOMAIN: &str = "cluster.local";

/// The policies, as a user would write them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policies {
    /// Who may call whom: everything is decided before a byte passes.
    PerConnection,
    /// The full example: who may call whom, with which requests.
    PerRequest,
}

impl Policies {
    fn text(self) -> &'static str {
        match self {
            Self::PerConnection => include_str!("per_connection.yaml"),
            Self::PerRequest => include_str!("per_request.yaml"),
        }
    }
}

/// The pods and Services of the reference example. Both calls of its chain cross the link.
pub struct Reference {
    /// On node A.
    pub frontend: Pod,
    /// On node B.
    pub orders: Pod,
    /// On node A.
    pub payments: Pod,
    /// On node B; not in the mesh.
    pub intruder: Pod,
    /// Port 80 of `orders`.
    pub orders_service: Service,
    /// Port 80 of `payments`.
    pub payments_service: Service,
}

impl Reference {
    /// The port on which `orders` and `payments` listen.
    pub const PORT: u16 = 8080;

    /// The port of the liveness probe of `payments`.
    pub const PROBE_PORT: u16 = 8081;

    /// The file of the policies.
    pub const POLICIES_FILE: &str = "policies.yaml";

    /// Adds pods and Services and writes their configuration and the policies per connection.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn build(lab: &Lab) -> Result<Self> {
        Self::build_with(lab, Policies::PerConnection)
    }

    /// Adds them with these policies.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn build_with(lab: &Lab, policies: Policies) -> Result<Self> {
        let payments = PodSpec {
            probe_port: Some(Self::PROBE_PORT),
            ..PodSpec::named("payments")
        };
        let frontend = lab.add_pod(NodeName::A, PodSpec::named("frontend"))?;
        let orders = lab.add_pod(NodeName::B, PodSpec::named("orders"))?;
        let payments = lab.add_pod(NodeName::A, payments)?;
        let intruder = lab.add_pod(NodeName::B, PodSpec::named("intruder"))?;
        let reference = Self {
            orders_service: lab.add_service(&orders, 80, Self::PORT)?.speaking("http"),
            payments_service: lab.add_service(&payments, 80, Self::PORT)?.speaking("http"),
            frontend,
            orders,
            payments,
            intruder,
        };
        reference.write(lab, policies)?;
        Ok(reference)
    }

    /// Builds it, with the policies per connection, and starts both agents.
    ///
    /// # Errors
    ///
    /// If an agent does not begin to serve.
    pub fn start(lab: &Lab) -> Result<(Self, [Agent; 2])> {
        Self::start_with(lab, Policies::PerConnection)
    }

    /// Builds it and starts both agents.
    ///
    /// # Errors
    ///
    /// If an agent does not begin to serve.
    pub fn start_with(lab: &Lab, policies: Policies) -> Result<(Self, [Agent; 2])> {
        Ok((Self::build_with(lab, policies)?, lab.start_agents()?))
    }

    /// All pods.
    pub fn pods(&self) -> [&Pod; 4] {
        [&self.frontend, &self.orders, &self.payments, &self.intruder]
    }

    /// Replaces the policies.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    pub fn set_policies(&self, lab: &Lab, policies: Policies) -> Result<()> {
        lab.manifests().write(Self::POLICIES_FILE, policies.text())
    }

    fn write(&self, lab: &Lab, policies: Policies) -> Result<()> {
        let manifests = lab.manifests();
        for pod in self.pods() {
            let membership = if pod.name() == self.intruder.name() {
                Membership::None
            } else {
                Membership::Ambient
            };
            manifests.write_namespace(pod.namespace(), membership)?;
            manifests.write_pod(pod)?;
        }
        manifests.write_service(&self.orders_service)?;
        manifests.write_service(&self.payments_service)?;
        self.set_policies(lab, policies)
    }
}
