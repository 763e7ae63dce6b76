//! Services, their EndpointSlices, and the protocols of their ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{ObjectName, Snapshot, Workload};

/// A Kubernetes Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// `spec.clusterIPs`, canonical; empty for a headless Service.
    pub addresses: Vec<IpAddr>,
    /// `spec.ports`, TCP only.
    pub ports: Vec<ServicePort>,
    /// `spec.selector`: the labels of its pods. An empty selector selects nothing.
    pub selector: BTreeMap<String, String>,
}

impl Service {
    /// Whether the Service selects a pod, ready or not.
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
    /// The protocol of `appProtocol`, or else of the port's name.
    pub protocol: AppProtocol,
}

/// The pod's port to which a Service's port leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TargetPort {
    /// This port.
    Number(u16),
    /// The container port of this name.
    Name(String),
}

impl TargetPort {
    /// The port on a pod; `None` if the pod has no port of this name.
    pub fn on(&self, workload: &Workload) -> Option<u16> {
        match self {
            Self::Number(port) => Some(*port),
            Self::Name(name) => workload.named_ports.get(name).copied(),
        }
    }
}

/// A Kubernetes EndpointSlice: endpoints of one Service in one address family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub name: ObjectName,
    /// The Service, in the same namespace (label `kubernetes.io/service-name`).
    pub service: ObjectName,
    /// `ports`, TCP only.
    pub ports: Vec<SlicePort>,
    /// `endpoints`.
    pub endpoints: Vec<SliceEndpoint>,
}

/// A TCP port of all endpoints of a slice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlicePort {
    /// `name`: that of the Service's port; `None` if neither has a name.
    pub name: Option<String>,
    /// `port`.
    pub port: u16,
}

/// An endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SliceEndpoint {
    /// `addresses`, canonical. Connections go to the first one.
    pub addresses: Vec<IpAddr>,
    /// The state from `conditions`.
    pub state: EndpointState,
}

/// Whether an endpoint accepts connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndpointState {
    /// It accepts connections.
    Ready,
    /// It is terminating but still serves. As in kube-proxy, it is used if no endpoint is ready.
    Ending,
    /// It does not accept connections.
    NotReady,
}

/// The protocol that a Service declares for one of its TCP ports (Istio's protocol selection).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppProtocol {
    /// HTTP/1.1, which may be upgraded.
    Http,
    /// HTTP/2 without TLS, including gRPC.
    Http2,
    /// Bytes that the mesh does not interpret: another protocol, one inside TLS, or none declared.
    Opaque,
}

impl AppProtocol {
    /// Whether the port carries HTTP requests.
    pub fn is_http(self) -> bool {
        match self {
            Self::Http | Self::Http2 => true,
            Self::Opaque => false,
        }
    }
}

impl Snapshot {
    /// The ports of a pod that carry HTTP, by the Services that select the pod or whose slices list it.
    ///
    /// If one Service declares a port as HTTP and another one does not, the port carries HTTP: rules about
    /// requests then apply whichever Service the caller used.
    pub fn http_ports(&self, workload: &Workload) -> BTreeSet<u16> {
        self.service_ports(workload)
            .filter(|(_, port, _)| port.protocol.is_http())
            .map(|(_, _, number)| number)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parts, pod, service};
    use super::super::{Service, TargetPort};
    use super::*;

    fn declaring(name: &str, port: u16, target: TargetPort, protocol: AppProtocol) -> Service {
        let mut service = service(name, &[], port, target);
        service.ports[0].protocol = protocol;
        service
    }

    fn ports(services: Vec<Service>) -> Vec<u16> {
        let mut web = pod("a/web", &["10.0.0.1"]);
        web.named_ports.insert("api".into(), 9000);
        let mut mesh = parts();
        mesh.services = services;
        let snapshot = Snapshot::new(mesh);
        snapshot.http_ports(&web).into_iter().collect()
    }

    #[test]
    fn target_ports_declared_as_http_by_number_and_by_name() {
        let services = vec![
            declaring("a/one", 80, TargetPort::Number(8080), AppProtocol::Http),
            declaring(
                "a/two",
                81,
                TargetPort::Name("api".into()),
                AppProtocol::Http2,
            ),
            declaring("a/three", 82, TargetPort::Number(5432), AppProtocol::Opaque),
            declaring(
                "a/four",
                83,
                TargetPort::Name("gone".into()),
                AppProtocol::Http,
            ),
        ];
        assert_eq!(ports(services), [8080, 9000]);
    }

    #[test]
    fn http_wins_if_services_disagree() {
        for order in [
            [AppProtocol::Http, AppProtocol::Opaque],
            [AppProtocol::Opaque, AppProtocol::Http],
        ] {
            let [one, two] = order;
            let services = vec![
                declaring("a/one", 80, TargetPort::Number(8080), one),
                declaring("a/two", 90, TargetPort::Number(8080), two),
            ];
            assert_eq!(ports(services), [8080]);
        }
    }

    #[test]
    fn a_service_that_does_not_select_the_pod_declares_nothing_for_it() {
        let http = |name| declaring(name, 80, TargetPort::Number(8080), AppProtocol::Http);
        let mut other = http("a/other");
        other.selector.insert("tier".into(), "back".into());
        assert_eq!(ports(vec![other, http("b/elsewhere")]), [0u16; 0]);
    }
}
