//! What is called: the endpoints of a destination by its name.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::caller::no_address;
use super::error::QuestionError;
use super::near::near;
use super::question::DestinationName;
use ambit_model::{Destination, ObjectName, PodEndpoint, Service, Snapshot, Workload};

/// The port on which tunnels arrive.
const TUNNEL_PORT: u16 = 15008;

/// A destination.
#[derive(Debug)]
pub(super) struct ResolvedDestination {
    /// For people.
    pub(super) description: String,
    /// What a client would call it in a request.
    pub(super) host: String,
    /// At least one.
    pub(super) endpoints: Vec<PodEndpoint>,
    pub(super) assumptions: Vec<String>,
}

impl ResolvedDestination {
    pub(super) fn resolve(
        to: &DestinationName,
        port: u16,
        snapshot: &Snapshot,
    ) -> Result<Self, QuestionError> {
        if matches!(port, 0 | TUNNEL_PORT) {
            return Err(QuestionError::Port(port));
        }
        match to {
            DestinationName::Pod(name) => match snapshot.workload(name) {
                Some(pod) => Ok(Self::pod(pod, None, port)),
                None => Err(unknown("pod", name, pods(snapshot))),
            },
            DestinationName::Service(name) => match service(snapshot, name) {
                Some(service) => Self::service(service, None, port, snapshot),
                None => Err(unknown("Service", name, services(snapshot))),
            },
            DestinationName::Either(name) => {
                match (snapshot.workload(name), service(snapshot, name)) {
                    (Some(_), Some(_)) => Err(QuestionError::PodAndService(name.clone())),
                    (Some(pod), None) => Ok(Self::pod(pod, None, port)),
                    (None, Some(service)) => Self::service(service, None, port, snapshot),
                    (None, None) => {
                        let known = pods(snapshot).chain(services(snapshot));
                        Err(unknown("pod or Service", name, known))
                    }
                }
            }
            DestinationName::Address(address) => Self::address(*address, port, snapshot),
        }
    }

    fn address(address: IpAddr, port: u16, snapshot: &Snapshot) -> Result<Self, QuestionError> {
        let address = address.to_canonical();
        match snapshot.destination(SocketAddr::new(address, port)) {
            Destination::Workload(target) => Ok(Self::pod(&target.workload, Some(address), port)),
            Destination::Service { service: name, .. }
            | Destination::Unexplained(name)
            | Destination::NoSuchPort(name) => match service(snapshot, &name) {
                Some(service) => Self::service(service, Some(address), port, snapshot),
                None => Err(QuestionError::UnknownAddress(address)),
            },
            Destination::Ambiguous(claimants) => {
                Err(QuestionError::ContestedAddress { address, claimants })
            }
            Destination::Unknown => Err(QuestionError::UnknownAddress(address)),
        }
    }

    fn pod(pod: &Arc<Workload>, dialled: Option<IpAddr>, port: u16) -> Self {
        let mut assumptions = Vec::new();
        let target = target(pod, dialled, port, &mut assumptions);
        Self {
            description: format!("pod {}", pod.name),
            host: target.address.to_string(),
            endpoints: vec![target],
            assumptions,
        }
    }

    /// All pods behind it, ready or not: policies do not ask.
    fn service(
        service: &Service,
        dialled: Option<IpAddr>,
        port: u16,
        snapshot: &Snapshot,
    ) -> Result<Self, QuestionError> {
        let name = &service.name;
        let Some(declared) = service.ports.iter().find(|known| known.port == port) else {
            return Err(QuestionError::NoSuchPort {
                service: name.clone(),
                port,
                ports: service.ports.iter().map(|known| known.port).collect(),
            });
        };
        let family = dialled.or_else(|| service.addresses.first().copied());
        let mut assumptions = Vec::new();
        let pods = snapshot.pods_behind(name, declared).into_iter();
        let pods = pods.filter(|behind| {
            let listed = behind.address;
            listed.is_none_or(|address| same_family(address, family))
        });
        let endpoints: Vec<_> = pods
            .map(|behind| {
                let mut own = behind.workload.mesh_addresses();
                let own = own.find(|address| same_family(*address, family));
                let address = behind.address.or(own);
                target(behind.workload, address, behind.port, &mut assumptions)
            })
            .collect();
        if endpoints.is_empty() {
            return Err(QuestionError::NoEndpoints(name.clone()));
        }
        Ok(Self {
            description: format!("Service {name} port {port}"),
            host: format!("{}.{}", name.name, name.namespace),
            endpoints,
            assumptions,
        })
    }
}

fn same_family(address: IpAddr, family: Option<IpAddr>) -> bool {
    family.is_none_or(|family| family.is_ipv4() == address.is_ipv4())
}

/// A pod at its address, or at none where it has none yet.
fn target(
    pod: &Arc<Workload>,
    address: Option<IpAddr>,
    port: u16,
    assumptions: &mut Vec<String>,
) -> PodEndpoint {
    let address = address.or_else(|| pod.mesh_addresses().next());
    let address = address.unwrap_or_else(|| {
        assumptions.push(format!(
            "the pod {} has no address of its own: rules on destination.ip cannot be told",
            pod.name
        ));
        no_address(IpAddr::from([0, 0, 0, 0]))
    });
    PodEndpoint {
        workload: Arc::clone(pod),
        address: SocketAddr::new(address, port),
    }
}

fn service<'a>(snapshot: &'a Snapshot, name: &ObjectName) -> Option<&'a Service> {
    let mut services = snapshot.services().iter();
    services.find(|service| service.name == *name)
}

fn pods(snapshot: &Snapshot) -> impl Iterator<Item = &ObjectName> {
    snapshot.workloads().iter().map(|workload| &workload.name)
}

fn services(snapshot: &Snapshot) -> impl Iterator<Item = &ObjectName> {
    snapshot.services().iter().map(|service| &service.name)
}

fn unknown<'a>(
    kind: &'static str,
    name: &ObjectName,
    known: impl Iterator<Item = &'a ObjectName>,
) -> QuestionError {
    QuestionError::Unknown {
        kind,
        name: name.clone(),
        near: near(name, known),
    }
}
