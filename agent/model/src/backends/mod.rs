//! What is behind a Service: the endpoints in its EndpointSlices, or else the pods that it selects.
//!
//! | the Service has | its endpoints | its cluster IP passes in the kernel |
//! |---|---|---|
//! | slices | those of its slices, as for kube-proxy | if every endpoint, listed or selected, is outside the mesh |
//! | a selector and no slices | the ready pods that it selects | if every pod that it selects is outside the mesh |
//! | neither | unknown | never |
//!
//! An endpoint is outside the mesh if it is a pod that is not opted in, or an address outside the mesh's
//! ranges that no object has. An address that several objects have, or that is inside the ranges and no
//! object has, is unknown: it belongs to the mesh, and nothing is sent there.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::snapshot::AddressOwner;
use super::{
    EndpointSlice, EndpointState, ObjectName, PodEndpoint, Service, ServicePort, SliceEndpoint,
    Snapshot, Workload,
};

/// Where a connection to a Service can go.
#[derive(Clone, Debug)]
pub enum ServiceEndpoint {
    /// To a pod.
    Pod(PodEndpoint),
    /// To an address outside the mesh.
    Outside(SocketAddr),
}

impl ServiceEndpoint {
    /// Where it is reached.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Pod(target) => target.address,
            Self::Outside(address) => *address,
        }
    }
}

/// What is behind a Service.
#[derive(Clone, Debug, PartialEq, Default)]
pub(super) struct Backends {
    /// The pods that it selects, ready or not.
    pub(super) selected: Vec<usize>,
    /// Its EndpointSlices.
    pub(super) slices: Vec<usize>,
}

/// A port that a Service has on a pod, because a slice lists the pod.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ListedPort {
    service: usize,
    /// The Service's port, by its index.
    port: usize,
    /// The pod's port.
    number: u16,
}

/// What an address in a slice is.
#[derive(Clone, Copy)]
pub(super) enum Backend<'a> {
    /// A pod.
    Pod(&'a Arc<Workload>),
    /// Outside the mesh.
    Outside,
    /// In the mesh, but unknown.
    Unknown,
}

/// The endpoints of a Service's port.
#[derive(Default)]
pub(super) struct Endpoints {
    pub(super) known: Vec<ServiceEndpoint>,
    /// In the mesh, but unknown.
    pub(super) unknown: Vec<SocketAddr>,
}

/// A pod behind a Service's port, ready or not.
#[derive(Clone, Debug)]
pub struct PodBehind<'a> {
    /// The pod.
    pub workload: &'a Arc<Workload>,
    /// The address in a slice; `None` if the Service selects the pod.
    pub address: Option<IpAddr>,
    /// Where its application listens.
    pub port: u16,
}

impl Snapshot {
    /// The slices of a Service.
    pub(super) fn slices(&self, service: usize) -> impl Iterator<Item = &EndpointSlice> {
        let slices = self.backends(service).slices.iter();
        slices.map(|index| &self.endpoint_slices()[*index])
    }

    /// What an address in a slice is.
    pub(super) fn backend(&self, address: IpAddr) -> Backend<'_> {
        match self.owners(address) {
            [AddressOwner::Workload(index)] => Backend::Pod(&self.workloads()[*index]),
            [] if !self.ranges().contains(address) => Backend::Outside,
            _ => Backend::Unknown,
        }
    }

    /// The endpoints of a Service's port that accept connections, in the address family of `dialled` if
    /// that is given.
    pub(super) fn endpoints(
        &self,
        service: usize,
        port: &ServicePort,
        dialled: Option<IpAddr>,
    ) -> Endpoints {
        if self.backends(service).slices.is_empty() {
            let pods = self.members(service).filter(|workload| workload.ready);
            let known = pods.filter_map(|workload| selected(workload, port, dialled));
            return Endpoints {
                known: known.map(ServiceEndpoint::Pod).collect(),
                unknown: Vec::new(),
            };
        }
        let ready = self.listed(service, port, dialled, EndpointState::Ready);
        if ready.is_empty() {
            self.listed(service, port, dialled, EndpointState::Ending)
        } else {
            ready
        }
    }

    fn listed(
        &self,
        service: usize,
        port: &ServicePort,
        dialled: Option<IpAddr>,
        state: EndpointState,
    ) -> Endpoints {
        let mut endpoints = Endpoints::default();
        for (number, endpoint) in self.listing(service, port) {
            let first = endpoint.addresses.first().copied();
            let Some(ip) = first.filter(|ip| endpoint.state == state && alike(*ip, dialled)) else {
                continue;
            };
            let address = SocketAddr::new(ip, number);
            if endpoints.has(address) {
                continue;
            }
            match self.backend(ip) {
                Backend::Pod(workload) => endpoints.known.push(ServiceEndpoint::Pod(PodEndpoint {
                    workload: Arc::clone(workload),
                    address,
                })),
                Backend::Outside => endpoints.known.push(ServiceEndpoint::Outside(address)),
                Backend::Unknown => endpoints.unknown.push(address),
            }
        }
        endpoints
    }

    /// The endpoints of all slices of a Service that have a port, with its number in the slice.
    fn listing<'a>(
        &'a self,
        service: usize,
        port: &'a ServicePort,
    ) -> impl Iterator<Item = (u16, &'a SliceEndpoint)> {
        self.slices(service).flat_map(move |slice| {
            let known = slice.ports.iter().find(|one| one.name == port.name);
            let endpoints =
                known.map(|known| slice.endpoints.iter().map(move |one| (known.port, one)));
            endpoints.into_iter().flatten()
        })
    }

    /// The pods behind a port of a Service, ready or not.
    pub fn pods_behind<'a>(
        &'a self,
        name: &ObjectName,
        port: &'a ServicePort,
    ) -> Vec<PodBehind<'a>> {
        let mut services = self.services().iter();
        let Some(service) = services.position(|service| service.name == *name) else {
            return Vec::new();
        };
        if self.backends(service).slices.is_empty() {
            let pods = self.members(service).filter_map(|workload| {
                Some(PodBehind {
                    workload,
                    address: None,
                    port: port.target.on(workload)?,
                })
            });
            return pods.collect();
        }
        let listed = self.listing(service, port).filter_map(|(port, endpoint)| {
            let address = *endpoint.addresses.first()?;
            match self.backend(address) {
                Backend::Pod(workload) => Some(PodBehind {
                    workload,
                    address: Some(address),
                    port,
                }),
                Backend::Outside | Backend::Unknown => None,
            }
        });
        listed.collect()
    }

    /// The ports that Services of a pod's own namespace have on the pod, because they select it or their
    /// slices list it. Slices do not count for pods of other namespaces, because their authors have no
    /// authority there.
    pub fn service_ports<'a>(
        &'a self,
        workload: &'a Workload,
    ) -> impl Iterator<Item = (&'a Service, &'a ServicePort, u16)> {
        let selecting = self.services().iter();
        let selecting = selecting.filter(move |service| service.selects(workload));
        let selected = selecting.flat_map(move |service| {
            let ports = service.ports.iter();
            ports.filter_map(move |port| Some((service, port, port.target.on(workload)?)))
        });
        let listed = self
            .listed_ports(&workload.name)
            .iter()
            .filter_map(move |one| {
                let service = self.services().get(one.service)?;
                Some((service, service.ports.get(one.port)?, one.number))
            });
        selected.chain(listed)
    }
}

impl Endpoints {
    fn is_empty(&self) -> bool {
        self.known.is_empty() && self.unknown.is_empty()
    }

    fn has(&self, address: SocketAddr) -> bool {
        self.unknown.contains(&address) || self.known.iter().any(|one| one.address() == address)
    }
}

/// The endpoint of a pod for a port of a Service that selects it; `None` if it has none.
fn selected(
    workload: &Arc<Workload>,
    port: &ServicePort,
    dialled: Option<IpAddr>,
) -> Option<PodEndpoint> {
    let address = workload
        .mesh_addresses()
        .find(|address| alike(*address, dialled))?;
    Some(PodEndpoint {
        workload: Arc::clone(workload),
        address: SocketAddr::new(address, port.target.on(workload)?),
    })
}

fn alike(address: IpAddr, dialled: Option<IpAddr>) -> bool {
    dialled.is_none_or(|dialled| address.is_ipv4() == dialled.is_ipv4())
}

/// What is behind each Service, by the Service's index.
pub(super) fn backends(
    workloads: &[Workload],
    services: &[Service],
    slices: &[EndpointSlice],
) -> Vec<Backends> {
    let mut by_namespace: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, workload) in workloads.iter().enumerate() {
        let namespace = workload.name.namespace.as_ref();
        by_namespace.entry(namespace).or_default().push(index);
    }
    let mut by_service: HashMap<&ObjectName, Vec<usize>> = HashMap::new();
    for (index, slice) in slices.iter().enumerate() {
        by_service.entry(&slice.service).or_default().push(index);
    }
    let of_service = |service: &Service| {
        let candidates = by_namespace.get(service.name.namespace.as_ref());
        let selected = candidates.into_iter().flatten().copied();
        Backends {
            selected: selected
                .filter(|index| service.selects(&workloads[*index]))
                .collect(),
            slices: by_service.get(&service.name).cloned().unwrap_or_default(),
        }
    };
    services.iter().map(of_service).collect()
}

/// The ports that slices give to pods of their own namespace, by the pod's index.
pub(super) fn listed_ports(snapshot: &Snapshot) -> HashMap<ObjectName, Vec<ListedPort>> {
    let mut listed: HashMap<ObjectName, Vec<ListedPort>> = HashMap::new();
    for (service, object) in snapshot.services().iter().enumerate() {
        for (port, declared) in object.ports.iter().enumerate() {
            for (number, endpoint) in snapshot.listing(service, declared) {
                for address in &endpoint.addresses {
                    let Backend::Pod(pod) = snapshot.backend(*address) else {
                        continue;
                    };
                    if pod.name.namespace != object.name.namespace {
                        continue;
                    }
                    let one = ListedPort {
                        service,
                        port,
                        number,
                    };
                    let known = listed.entry(pod.name.clone()).or_default();
                    if !known.contains(&one) {
                        known.push(one);
                    }
                }
            }
        }
    }
    listed
}

#[cfg(test)]
mod tests;
