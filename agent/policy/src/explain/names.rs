//! Finds what a question names: the caller with its identity and address, and the endpoints of the
//! destination.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::explanation::ExplainedCaller;
use super::question::{
    AccessQuestion, CallerName, CallerTransport, DestinationName, QuestionError,
};
use ambit_model::{
    Destination, ObjectName, PodEndpoint, Service, Snapshot, Workload, WorkloadIdentity,
};

/// A caller, and the assumptions about it.
#[derive(Debug)]
pub(super) struct ResolvedCaller {
    identity: Option<WorkloadIdentity>,
    addresses: Vec<IpAddr>,
    pod: Option<Arc<Workload>>,
    pub(super) assumptions: Vec<String>,
}

impl ResolvedCaller {
    pub(super) fn resolve(
        question: &AccessQuestion,
        snapshot: &Snapshot,
    ) -> Result<Self, QuestionError> {
        let mut caller = match &question.from {
            CallerName::Address(address) => Self::of_address(*address, question, snapshot),
            CallerName::Identity(identity) => Self::of_identity(identity.clone(), snapshot),
            CallerName::Account(name) => {
                let domain = snapshot.trust_domain().clone();
                let identity = WorkloadIdentity::new(domain, &name.namespace, &name.name);
                let known = || snapshot.workloads().iter().map(|workload| &workload.name);
                let identity = identity.map_err(|_| QuestionError::Unknown {
                    kind: "service account",
                    name: name.clone(),
                    near: near(name, known()),
                })?;
                Self::of_identity(identity, snapshot)
            }
            CallerName::Pod(name) => {
                let known = || snapshot.workloads().iter().map(|workload| &workload.name);
                let pod = snapshot
                    .workload(name)
                    .ok_or_else(|| QuestionError::Unknown {
                        kind: "pod",
                        name: name.clone(),
                        near: near(name, known()),
                    })?;
                Self::of_pod(pod)
            }
        };
        if question.transport == CallerTransport::Plaintext {
            caller.identity = None;
        }
        if let Some(address) = question.from_address {
            caller.addresses = vec![address.to_canonical()];
        }
        Ok(caller)
    }

    fn of_pod(pod: &Arc<Workload>) -> Self {
        let mut assumptions = Vec::new();
        let identity = pod.is_opted_in().then(|| pod.identity.clone());
        if identity.is_none() {
            let name = &pod.name;
            assumptions.push(format!(
                "the pod {name} is not in the mesh and calls in plaintext"
            ));
        }
        Self {
            identity,
            addresses: pod.mesh_addresses().collect(),
            pod: Some(Arc::clone(pod)),
            assumptions,
        }
    }

    /// An address by itself has no identity. The pod that has the address may have one.
    fn of_address(address: IpAddr, question: &AccessQuestion, snapshot: &Snapshot) -> Self {
        let address = address.to_canonical();
        let mut caller = match snapshot.by_address(address) {
            Some(pod) => Self::of_pod(pod),
            None => Self {
                identity: None,
                addresses: Vec::new(),
                pod: None,
                assumptions: Vec::new(),
            },
        };
        if let (Some(pod), Some(identity), CallerTransport::Tunnel) =
            (&caller.pod, &caller.identity, question.transport)
        {
            caller.assumptions.push(format!(
                "{address} is the pod {}, which is in the mesh: it is assumed to call with its \
                 identity, {identity} (--plaintext for none)",
                pod.name
            ));
        }
        caller.addresses = vec![address];
        caller
    }

    /// The address is that of the first pod that has the identity.
    fn of_identity(identity: WorkloadIdentity, snapshot: &Snapshot) -> Self {
        let mut pods = snapshot.workloads().iter();
        let pod = pods.find(|pod| pod.is_opted_in() && pod.identity == identity);
        Self {
            identity: Some(identity),
            addresses: pod.map_or_else(Vec::new, |pod| pod.mesh_addresses().collect()),
            pod: pod.map(Arc::clone),
            assumptions: Vec::new(),
        }
    }

    /// Its address of the destination's family; `None` if no address is known.
    ///
    /// # Errors
    /// [`QuestionError::Family`] if its known addresses are all of the other family.
    pub(super) fn address(&self, destination: IpAddr) -> Result<Option<IpAddr>, QuestionError> {
        let same = |own: &&IpAddr| own.is_ipv4() == destination.is_ipv4();
        match (self.addresses.iter().find(same), self.addresses.first()) {
            (Some(own), _) => Ok(Some(*own)),
            (None, None) => Ok(None),
            (None, Some(other)) => Err(QuestionError::Family {
                from: *other,
                to: destination,
            }),
        }
    }

    pub(super) fn identity(&self) -> Option<&WorkloadIdentity> {
        self.identity.as_ref()
    }

    pub(super) fn shown(&self, address: Option<IpAddr>) -> ExplainedCaller {
        ExplainedCaller {
            identity: self.identity.clone(),
            address,
            pod: self.pod.as_ref().map(|pod| pod.name.clone()),
        }
    }
}

/// The address that replaces an unknown one.
pub(super) const fn no_address(destination: IpAddr) -> IpAddr {
    match destination {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// The port of tunnels (HBONE).
const TUNNEL_PORT: u16 = 15008;

/// A destination.
#[derive(Debug)]
pub(super) struct ResolvedDestination {
    /// Its description in the answer.
    pub(super) description: String,
    /// The host that a client would send.
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

    /// All pods behind it, ready or not, because policies do not depend on readiness.
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

/// A pod at an address; at the unspecified one if it has none yet.
fn target(
    pod: &Arc<Workload>,
    address: Option<IpAddr>,
    port: u16,
    assumptions: &mut Vec<String>,
) -> PodEndpoint {
    let address = address.or_else(|| pod.mesh_addresses().next());
    let address = address.unwrap_or_else(|| {
        assumptions.push(format!(
            "the pod {} has no address of its own, so rules on destination.ip cannot be judged",
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

/// The most names that are suggested.
const MOST: usize = 3;

/// The least similarity of a suggested name, from 0 to 1.
const LEAST_SIMILARITY: f64 = 0.6;

/// The known names that are most similar to a name, the most similar first. The same name in another
/// namespace counts as equal.
pub(super) fn near<'a>(
    wanted: &ObjectName,
    known: impl Iterator<Item = &'a ObjectName>,
) -> Vec<String> {
    let mut scored: Vec<_> = known
        .map(|name| (similarity(wanted, name), name.to_string()))
        .filter(|(similarity, _)| *similarity >= LEAST_SIMILARITY)
        .collect();
    scored.sort_by(|(one, a), (other, b)| other.total_cmp(one).then_with(|| a.cmp(b)));
    scored.dedup();
    scored
        .into_iter()
        .take(MOST)
        .map(|(_, name)| name)
        .collect()
}

fn similarity(wanted: &ObjectName, name: &ObjectName) -> f64 {
    if wanted.name == name.name {
        return 1.0;
    }
    strsim::normalized_damerau_levenshtein(&wanted.to_string(), &name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_come_first_and_others_are_left_out() {
        let known = ["shop/cart", "shop/card", "pay/cart", "shop/checkout", "a/b"];
        let known = known.map(|text| {
            let (namespace, name) = text.split_once('/').expect("namespace/name");
            ObjectName::new(namespace, name)
        });
        let of = |name: ObjectName| near(&name, known.iter());
        assert_eq!(
            of(ObjectName::new("shop", "crat")),
            ["shop/cart", "shop/card"]
        );
        assert_eq!(
            of(ObjectName::new("web", "cart")),
            ["pay/cart", "shop/cart"]
        );
        assert!(of(ObjectName::new("x", "y")).is_empty());
    }
}
