use std::collections::BTreeMap;
use std::net::IpAddr;

use super::ObjectName;

/// A Kubernetes Service with a selector.
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

/// A TCP port of a Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServicePort {
    /// `name`.
    pub name: Option<String>,
    /// `port`, 1 to 65535.
    pub port: u16,
    /// `targetPort`.
    pub target: TargetPort,
}

/// Which port of a pod a Service's port means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TargetPort {
    /// This one.
    Number(u16),
    /// The container port of this name.
    Name(String),
}
