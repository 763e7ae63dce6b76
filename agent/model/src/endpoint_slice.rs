use std::net::IpAddr;

use super::ObjectName;

/// A Kubernetes EndpointSlice: endpoints of one Service, of one address family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub name: ObjectName,
    /// The Service, of the same namespace: label `kubernetes.io/service-name`.
    pub service: ObjectName,
    /// `ports`, TCP only.
    pub ports: Vec<SlicePort>,
    /// `endpoints`.
    pub endpoints: Vec<SliceEndpoint>,
}

/// A TCP port of all endpoints of a slice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlicePort {
    /// `name`: that of the Service's port; `None` where both have none.
    pub name: Option<String>,
    /// `port`.
    pub port: u16,
}

/// An endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SliceEndpoint {
    /// `addresses`, canonical. Connections go to the first one.
    pub addresses: Vec<IpAddr>,
    /// What `conditions` say.
    pub state: EndpointState,
}

/// Whether an endpoint takes connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndpointState {
    /// It does.
    Ready,
    /// It ends, and still serves: used if no endpoint is ready, as by kube-proxy.
    Ending,
    /// It does not.
    NotReady,
}
