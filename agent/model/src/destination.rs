//! The meaning of an address and port to a caller in the mesh.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::backends::Endpoints;
use super::snapshot::AddressOwner;
use super::{ObjectName, ServiceEndpoint, Snapshot, Workload};

/// What is at an address and port, for a caller in the mesh.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A pod, dialled by its own address.
    Workload(PodEndpoint),
    /// A Service, with its ready endpoints for that port. There may be none.
    Service {
        /// The Service.
        service: ObjectName,
        /// Ready endpoints of the address family that was dialled.
        endpoints: Vec<ServiceEndpoint>,
        /// Ready endpoints in the mesh's ranges that no object, or more than one, has.
        unknown: Vec<SocketAddr>,
    },
    /// A Service without selector and EndpointSlices: what is behind it is not known.
    Unexplained(ObjectName),
    /// A Service that does not have this TCP port.
    NoSuchPort(ObjectName),
    /// An address that several objects claim, so its identity is not known.
    Ambiguous(Vec<ObjectName>),
    /// No object has this address.
    Unknown,
}

/// A pod, and the address and port at which its application is reached.
#[derive(Clone, Debug)]
pub struct PodEndpoint {
    /// The workload.
    pub workload: Arc<Workload>,
    /// Where its application listens.
    pub address: SocketAddr,
}

impl Snapshot {
    /// What is at an address and port. An IPv4-mapped address is its IPv4 address.
    pub fn destination(&self, to: SocketAddr) -> Destination {
        let address = to.ip().to_canonical();
        match self.owners(address) {
            [] => Destination::Unknown,
            [AddressOwner::Workload(index)] => Destination::Workload(PodEndpoint {
                workload: Arc::clone(&self.workloads()[*index]),
                address: SocketAddr::new(address, to.port()),
            }),
            [AddressOwner::Service(index)] => {
                self.service_destination(*index, Some(address), to.port())
            }
            several => Destination::Ambiguous(
                several
                    .iter()
                    .map(|owner| self.owner_name(*owner).clone())
                    .collect(),
            ),
        }
    }

    /// What is at a port of a Service: its ready pods, each at its first address.
    pub fn service(&self, name: &ObjectName, port: u16) -> Destination {
        let mut services = self.services().iter();
        match services.position(|service| service.name == *name) {
            Some(index) => self.service_destination(index, None, port),
            None => Destination::Unknown,
        }
    }

    fn service_destination(&self, index: usize, dialled: Option<IpAddr>, port: u16) -> Destination {
        let service = &self.services()[index];
        let Some(port) = service.ports.iter().find(|known| known.port == port) else {
            return Destination::NoSuchPort(service.name.clone());
        };
        if service.selector.is_empty() && self.backends(index).slices.is_empty() {
            return Destination::Unexplained(service.name.clone());
        }
        let Endpoints { known, unknown } = self.endpoints(index, port, dialled);
        Destination::Service {
            service: service.name.clone(),
            endpoints: known,
            unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parts, pod, service};
    use super::super::{Membership, NeverEnrolled, TargetPort};
    use super::*;

    fn targets(destination: Destination) -> Vec<String> {
        match destination {
            Destination::Service { endpoints, .. } => endpoints
                .iter()
                .map(|one| one.address().to_string())
                .collect(),
            other => panic!("not a Service: {other:?}"),
        }
    }

    fn at(snapshot: &Snapshot, to: &str) -> Destination {
        snapshot.destination(to.parse().expect("a socket address"))
    }

    #[test]
    fn a_pod_address_is_its_workload_in_either_notation() {
        let mut mesh = parts();
        mesh.workloads.push(pod("a/one", &["10.0.0.1", "fd00::1"]));
        let snapshot = Snapshot::new(mesh);
        for (to, address) in [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
            ("[fd00::1]:9", "[fd00::1]:9"),
        ] {
            match at(&snapshot, to) {
                Destination::Workload(target) => {
                    assert_eq!(target.address.to_string(), address);
                    assert_eq!(target.workload.name.to_string(), "a/one");
                }
                other => panic!("{to}: {other:?}"),
            }
        }
        assert!(matches!(at(&snapshot, "10.0.0.2:80"), Destination::Unknown));
    }

    #[test]
    fn a_service_has_ready_endpoints_of_the_dialled_family() {
        let mut mesh = parts();
        mesh.workloads = vec![
            pod("a/both", &["10.0.0.1", "fd00::1"]),
            pod("a/four", &["10.0.0.2"]),
            Workload {
                ready: false,
                ..pod("a/starting", &["10.0.0.3"])
            },
            pod("b/elsewhere", &["10.0.0.4"]),
            pod("a/unaddressed", &[]),
        ];
        mesh.services.push(service(
            "a/web",
            &["10.96.0.1", "fd96::1"],
            80,
            TargetPort::Number(8080),
        ));
        let snapshot = Snapshot::new(mesh);
        assert_eq!(
            targets(at(&snapshot, "10.96.0.1:80")),
            ["10.0.0.1:8080", "10.0.0.2:8080"]
        );
        assert_eq!(
            targets(at(&snapshot, "[::ffff:10.96.0.1]:80")),
            ["10.0.0.1:8080", "10.0.0.2:8080"]
        );
        assert_eq!(targets(at(&snapshot, "[fd96::1]:80")), ["[fd00::1]:8080"]);
        assert!(matches!(
            at(&snapshot, "10.96.0.1:81"),
            Destination::NoSuchPort(name) if name.to_string() == "a/web"
        ));
    }

    #[test]
    fn a_named_port_is_looked_up_in_each_pod() {
        let mut mesh = parts();
        for (name, address, port) in [
            ("a/v1", "10.0.0.1", Some(8080)),
            ("a/v2", "10.0.0.2", Some(9090)),
            ("a/v3", "10.0.0.3", None),
        ] {
            let mut workload = pod(name, &[address]);
            workload.named_ports = port
                .map(|port| ("http".to_owned(), port))
                .into_iter()
                .collect();
            mesh.workloads.push(workload);
        }
        mesh.services.push(service(
            "a/web",
            &["10.96.0.1"],
            80,
            TargetPort::Name("http".into()),
        ));
        assert_eq!(
            targets(at(&Snapshot::new(mesh), "10.96.0.1:80")),
            ["10.0.0.1:8080", "10.0.0.2:9090"]
        );
    }

    #[test]
    fn endpoints_of_a_service_without_selector_and_slices_are_not_known() {
        let mut mesh = parts();
        mesh.workloads.push(pod("a/one", &["10.0.0.1"]));
        let mut web = service("a/web", &["10.96.0.1"], 80, TargetPort::Number(80));
        web.selector.clear();
        mesh.services.push(web);
        assert!(matches!(
            at(&Snapshot::new(mesh), "10.96.0.1:80"),
            Destination::Unexplained(name) if name.to_string() == "a/web"
        ));
    }

    #[test]
    fn an_address_with_two_claimants_is_ambiguous() {
        let mut mesh = parts();
        mesh.workloads = vec![pod("a/one", &["10.0.0.1"]), pod("b/two", &["10.0.0.1"])];
        mesh.services
            .push(service("a/web", &["10.0.0.1"], 80, TargetPort::Number(80)));
        let snapshot = Snapshot::new(mesh);
        match at(&snapshot, "10.0.0.1:80") {
            Destination::Ambiguous(names) => {
                let names: Vec<_> = names.iter().map(ToString::to_string).collect();
                assert_eq!(names, ["a/one", "b/two", "a/web"]);
            }
            other => panic!("{other:?}"),
        }
        assert!(
            snapshot
                .by_address("10.0.0.1".parse().expect("valid"))
                .is_none()
        );
    }

    #[test]
    fn a_node_address_is_not_a_workload_address() {
        let mut mesh = parts();
        mesh.workloads.push(Workload {
            membership: Membership::Never(NeverEnrolled::HostNetwork),
            ..pod("a/node-agent", &["192.168.0.1"])
        });
        mesh.services
            .push(service("a/web", &["10.96.0.1"], 80, TargetPort::Number(80)));
        let snapshot = Snapshot::new(mesh);
        assert!(matches!(
            at(&snapshot, "192.168.0.1:80"),
            Destination::Unknown
        ));
        assert!(targets(at(&snapshot, "10.96.0.1:80")).is_empty());
    }
}
