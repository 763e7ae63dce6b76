use std::collections::BTreeSet;

use super::{Snapshot, Workload};

/// What a Service declares that one of its TCP ports speaks (Istio's protocol selection).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppProtocol {
    /// HTTP/1.1, which may be upgraded.
    Http,
    /// HTTP/2 without TLS, gRPC among it.
    Http2,
    /// Bytes that the mesh does not look into: another protocol, one that TLS hides, or none
    /// declared.
    Opaque,
}

impl AppProtocol {
    /// Whether requests can be told apart.
    pub fn is_http(self) -> bool {
        match self {
            Self::Http | Self::Http2 => true,
            Self::Opaque => false,
        }
    }
}

impl Snapshot {
    /// The ports of a pod that a Service declares as HTTP, if it selects the pod or its slices list
    /// it.
    ///
    /// A port that one Service declares as HTTP and another does not is HTTP: rules for requests
    /// then hold for whatever comes, whichever Service the caller had in mind.
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
    fn http_wins_where_services_disagree() {
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
