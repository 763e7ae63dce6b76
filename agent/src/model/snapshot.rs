use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Fault, MeshRanges, ObjectName, PolicyObject, Service, TrustDomain, Workload};

/// A namespace, as far as the mesh is concerned.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NamespaceInfo {
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
}

/// What a source hands over to make a [`Snapshot`].
#[derive(Clone, PartialEq, Debug)]
pub struct SnapshotParts {
    /// The mesh's trust domain.
    pub trust_domain: TrustDomain,
    /// Istio's root namespace, usually `istio-system`.
    pub root_namespace: Arc<str>,
    /// The cluster's pod and Service ranges.
    pub ranges: MeshRanges,
    /// Namespaces by name.
    pub namespaces: BTreeMap<Arc<str>, NamespaceInfo>,
    /// Pods, of all nodes.
    pub workloads: Vec<Workload>,
    /// Services.
    pub services: Vec<Service>,
    /// AuthorizationPolicy and PeerAuthentication objects.
    pub policies: Vec<PolicyObject>,
    /// What is wrong with the configuration.
    pub faults: Vec<Fault>,
    /// Whether the configuration is known in full. While it is not (first start with a broken
    /// document), every pod of this node stays closed.
    pub complete: bool,
}

/// The mesh at one moment. Immutable; a change makes a new one.
#[derive(Debug)]
pub struct Snapshot {
    parts: SnapshotParts,
    workloads: Vec<Arc<Workload>>,
    by_address: HashMap<IpAddr, Vec<usize>>,
    by_name: HashMap<ObjectName, usize>,
    services_by_address: HashMap<IpAddr, usize>,
}

/// What an address and port mean to a caller inside the mesh.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A pod, dialled by its own address.
    Workload(Target),
    /// A Service: its ready endpoints for that port, which may be none.
    Service {
        /// The Service.
        service: ObjectName,
        /// Ready endpoints of the caller's address family.
        endpoints: Vec<Target>,
    },
    /// A Service that has no such TCP port.
    NoSuchPort(ObjectName),
    /// An address that several workloads claim: no identity can be told from it.
    Ambiguous(Vec<ObjectName>),
    /// No object names this address.
    Unknown,
}

/// A workload and the address and port at which it is reached.
#[derive(Clone, Debug)]
pub struct Target {
    /// The workload.
    pub workload: Arc<Workload>,
    /// Where its application listens.
    pub address: SocketAddr,
}
