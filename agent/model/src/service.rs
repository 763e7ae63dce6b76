use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{AppProtocol, ObjectName, Workload};

/// A Kubernetes Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// `spec.clusterIPs`, canonical; empty for a headless Service.
    pub addresses: Vec<IpAddr>,
    /// `spec.ports`, TCP only.
    pub ports: Vec<ServicePort>,
    /// `spec.selector`: labels that its pods have. An empty one selects nothing.
    pub selector: BTreeMap<String, String>,
}

impl Service {
    /// Whether a pod is one of this Service's, ready or not.
    pub fn selects(&self, workload: &Workload) -> bool {
        let carries =
            |(key, value): (&String, &String)| workload.labels.get(key).is_some_and(|v| v == value);
        !self.selector.is_empty()
            && workload.name.namespace == self.name.namespace
            && self.selector.iter().all(carries)
    }
}

/// A TCP port of a Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServicePort {
    /// `name`.
    pub name: Option<String>,
    /// `port`, 1 to 65535.
    pub port: u16,
    /// `targetPort`.
    pub target: TargetPort,
    /// What `appProtocol`, or else the port's name, says.
    pub protocol: AppProtocol,
}

/// Which port of a pod a Service's port means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TargetPort {
    /// This one.
    Number(u16),
    /// The container port of this name.
    Name(String),
}

impl TargetPort {
    /// The port on one pod; `None` where the pod has no port of that name.
    pub fn on(&self, workload: &Workload) -> Option<u16> {
        match self {
            Self::Number(port) => Some(*port),
            Self::Name(name) => workload.named_ports.get(name).copied(),
        }
    }
}
