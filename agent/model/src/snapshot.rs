//! The mesh at one moment, and look-ups by name and address.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::backends::{self, Backends, ListedPort};
use super::{
    DataplaneMode, EndpointSlice, Fault, Membership, MeshRanges, MeshSettings, NamespaceInfo,
    ObjectName, PolicyObject, Revision, Service, TrustBundle, TrustDomain, Workload,
};

/// The parts from which a source makes a [`Snapshot`].
#[derive(Clone, PartialEq, Debug)]
pub struct SnapshotParts {
    /// The mesh's trust domain and its aliases.
    pub trust_bundle: TrustBundle,
    /// Istio's root namespace, usually `istio-system`.
    pub root_namespace: Arc<str>,
    /// The control plane's revision, whose policies apply.
    pub revision: Revision,
    /// The cluster's pod and Service ranges.
    pub ranges: MeshRanges,
    /// Namespaces by name.
    pub namespaces: BTreeMap<Arc<str>, NamespaceInfo>,
    /// The pods of all nodes, at most one of each name.
    pub workloads: Vec<Workload>,
    /// Services, at most one of each name.
    pub services: Vec<Service>,
    /// EndpointSlices, at most one of each name.
    pub endpoint_slices: Vec<EndpointSlice>,
    /// The policy objects.
    pub policies: Vec<PolicyObject>,
    /// Istio's mesh-wide settings.
    pub mesh_settings: MeshSettings,
    /// The faults of the configuration.
    pub faults: Vec<Fault>,
    /// Whether the configuration is known in full. While it is not (first start with a broken
    /// document), every pod of this node stays closed.
    pub complete: bool,
}

/// The mesh at one moment. It is immutable: a change makes a new snapshot.
#[derive(Debug, PartialEq)]
pub struct Snapshot {
    trust_bundle: TrustBundle,
    root_namespace: Arc<str>,
    revision: Revision,
    ranges: MeshRanges,
    namespaces: BTreeMap<Arc<str>, NamespaceInfo>,
    workloads: Vec<Arc<Workload>>,
    services: Vec<Service>,
    endpoint_slices: Vec<EndpointSlice>,
    policies: Vec<Arc<PolicyObject>>,
    mesh_settings: MeshSettings,
    faults: Vec<Fault>,
    complete: bool,
    by_name: HashMap<ObjectName, usize>,
    owners: BTreeMap<IpAddr, Vec<AddressOwner>>,
    /// By the Service's index.
    backends: Vec<Backends>,
    /// By pod: the ports that slices give it.
    listed_ports: HashMap<ObjectName, Vec<ListedPort>>,
}

/// The object that has an address, by its index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum AddressOwner {
    /// A pod.
    Workload(usize),
    /// A Service's cluster IP.
    Service(usize),
}

impl Snapshot {
    /// Makes a snapshot. Adds a fault for each address that several objects claim, and for each Service
    /// behind which nothing is known.
    pub fn new(parts: SnapshotParts) -> Self {
        let mut snapshot = Self {
            trust_bundle: parts.trust_bundle,
            root_namespace: parts.root_namespace,
            revision: parts.revision,
            ranges: parts.ranges,
            namespaces: parts.namespaces,
            by_name: by_name(&parts.workloads),
            owners: owners(&parts.workloads, &parts.services),
            backends: backends::backends(&parts.workloads, &parts.services, &parts.endpoint_slices),
            listed_ports: HashMap::new(),
            workloads: parts.workloads.into_iter().map(Arc::new).collect(),
            services: parts.services,
            endpoint_slices: parts.endpoint_slices,
            policies: parts.policies.into_iter().map(Arc::new).collect(),
            mesh_settings: parts.mesh_settings,
            faults: parts.faults,
            complete: parts.complete,
        };
        snapshot.listed_ports = backends::listed_ports(&snapshot);
        let contested = snapshot.contested_addresses();
        snapshot.faults.extend(contested);
        let unexplained = snapshot.unexplained_services();
        snapshot.faults.extend(unexplained);
        snapshot
    }

    /// The mesh's trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_bundle.own
    }

    /// The mesh's trust domain and its aliases.
    pub fn trust_bundle(&self) -> &TrustBundle {
        &self.trust_bundle
    }

    /// Istio's root namespace, whose policies apply to the whole mesh.
    pub fn root_namespace(&self) -> &str {
        &self.root_namespace
    }

    /// The control plane's revision, whose policies apply.
    pub fn revision(&self) -> &Revision {
        &self.revision
    }

    /// The cluster's pod and Service ranges.
    pub fn ranges(&self) -> &MeshRanges {
        &self.ranges
    }

    /// Namespaces by name.
    pub fn namespaces(&self) -> &BTreeMap<Arc<str>, NamespaceInfo> {
        &self.namespaces
    }

    /// The pods of all nodes.
    pub fn workloads(&self) -> &[Arc<Workload>] {
        &self.workloads
    }

    /// The Services.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The EndpointSlices.
    pub fn endpoint_slices(&self) -> &[EndpointSlice] {
        &self.endpoint_slices
    }

    /// The policy objects.
    pub fn policies(&self) -> &[Arc<PolicyObject>] {
        &self.policies
    }

    /// Istio's mesh-wide settings.
    pub fn mesh_settings(&self) -> &MeshSettings {
        &self.mesh_settings
    }

    /// The faults of the configuration, which an operator has to correct.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Whether the configuration is known in full; see [`SnapshotParts::complete`].
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The pod of this name.
    pub fn workload(&self, name: &ObjectName) -> Option<&Arc<Workload>> {
        self.by_name.get(name).map(|index| &self.workloads[*index])
    }

    /// Whether a pod's own label or its namespace's opts it out of the mesh. If its Namespace object is
    /// missing and it has no label, nothing opts it in or out.
    pub fn opts_out(&self, pod: &Workload) -> bool {
        let speaks = || match DataplaneMode::of(&pod.labels) {
            DataplaneMode::Ambient | DataplaneMode::Outside => true,
            DataplaneMode::Unset => self.namespaces.contains_key(&pod.name.namespace),
        };
        matches!(pod.membership, Membership::NotOptedIn) && speaks()
    }

    /// The pod that has this address. `None` if no pod has it, or another object claims it too.
    pub fn by_address(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        match self.owners(address.to_canonical()) {
            [AddressOwner::Workload(index)] => Some(&self.workloads[*index]),
            _ => None,
        }
    }

    /// The pods that a Service selects, ready or not, by the Service's index.
    pub(super) fn members(&self, service: usize) -> impl Iterator<Item = &Arc<Workload>> {
        let selected = self.backends[service].selected.iter();
        selected.map(|index| &self.workloads[*index])
    }

    /// What is behind a Service, by the Service's index.
    pub(super) fn backends(&self, service: usize) -> &Backends {
        &self.backends[service]
    }

    /// The ports that slices give a pod.
    pub(super) fn listed_ports(&self, pod: &ObjectName) -> &[ListedPort] {
        self.listed_ports.get(pod).map_or(&[], Vec::as_slice)
    }

    /// The objects that claim a canonical address.
    pub(super) fn owners(&self, address: IpAddr) -> &[AddressOwner] {
        self.owners.get(&address).map_or(&[], Vec::as_slice)
    }

    /// The name of an object that [`Snapshot::owners`] gave.
    pub(super) fn owner_name(&self, owner: AddressOwner) -> &ObjectName {
        match owner {
            AddressOwner::Workload(index) => &self.workloads[index].name,
            AddressOwner::Service(index) => &self.services[index].name,
        }
    }

    fn contested_addresses(&self) -> Vec<Fault> {
        self.owners
            .iter()
            .filter(|(_, claimants)| claimants.len() > 1)
            .map(|(address, claimants)| Fault {
                subject: format!("address {address}"),
                message: format!(
                    "{} claim this address, so its owner is not known: connections to it are refused \
                     until only one object has it.",
                    self.list(claimants)
                ),
                last_good_in_force: false,
            })
            .collect()
    }

    fn unexplained_services(&self) -> Vec<Fault> {
        let all = self.services.iter().zip(&self.backends);
        let unexplained = all.filter(|(service, backends)| {
            !service.addresses.is_empty()
                && service.selector.is_empty()
                && backends.slices.is_empty()
        });
        unexplained
            .map(|(service, _)| Fault {
                subject: format!("Service {}", service.name),
                message: "It selects no pods and has no EndpointSlice, so it is not known what is \
                          behind it: connections of the mesh to it are refused. Write its \
                          EndpointSlices."
                    .to_owned(),
                last_good_in_force: false,
            })
            .collect()
    }

    fn list(&self, claimants: &[AddressOwner]) -> String {
        let described: Vec<String> = claimants
            .iter()
            .map(|owner| match owner {
                AddressOwner::Workload(_) => format!("Pod {}", self.owner_name(*owner)),
                AddressOwner::Service(_) => format!("Service {}", self.owner_name(*owner)),
            })
            .collect();
        described.join(" and ")
    }
}

fn by_name(workloads: &[Workload]) -> HashMap<ObjectName, usize> {
    let mut names = HashMap::with_capacity(workloads.len());
    for (index, workload) in workloads.iter().enumerate() {
        names.entry(workload.name.clone()).or_insert(index);
    }
    names
}

fn owners(workloads: &[Workload], services: &[Service]) -> BTreeMap<IpAddr, Vec<AddressOwner>> {
    let of_workloads = workloads.iter().enumerate().flat_map(|(index, workload)| {
        let owner = AddressOwner::Workload(index);
        workload
            .mesh_addresses()
            .map(move |address| (address, owner))
    });
    let of_services = services.iter().enumerate().flat_map(|(index, service)| {
        let owner = AddressOwner::Service(index);
        let addresses = service.addresses.iter();
        addresses.map(move |address| (address.to_canonical(), owner))
    });
    let mut owners: BTreeMap<IpAddr, Vec<AddressOwner>> = BTreeMap::new();
    for (address, owner) in of_workloads.chain(of_services) {
        let claimants = owners.entry(address).or_default();
        // The addresses of one owner come one after another.
        if claimants.last() != Some(&owner) {
            claimants.push(owner);
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parts, pod, service, slice};
    use super::super::{NeverEnrolled, TargetPort};
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn pods_are_found_by_name_and_by_address() {
        let mut mesh = parts();
        mesh.workloads = vec![
            pod("a/one", &["10.0.0.1", "::ffff:10.0.0.1", "fd00::1"]),
            pod("a/two", &["10.0.0.2"]),
        ];
        let snapshot = Snapshot::new(mesh);
        let two = snapshot.workload(&ObjectName::new("a", "two"));
        assert_eq!(two.expect("known").addresses, [ip("10.0.0.2")]);
        for address in ["10.0.0.1", "::ffff:10.0.0.1", "fd00::1"] {
            let found = snapshot.by_address(ip(address)).expect(address);
            assert_eq!(found.name.to_string(), "a/one");
        }
        assert!(snapshot.by_address(ip("10.0.0.3")).is_none());
        assert!(snapshot.workload(&ObjectName::new("b", "two")).is_none());
        assert!(snapshot.faults().is_empty());
    }

    #[test]
    fn a_contested_address_is_a_fault() {
        let mut mesh = parts();
        mesh.workloads = vec![
            pod("a/one", &["10.0.0.1"]),
            pod("b/two", &["::ffff:10.0.0.1"]),
        ];
        mesh.services
            .push(service("a/web", &["10.96.0.1"], 80, TargetPort::Number(80)));
        let snapshot = Snapshot::new(mesh);
        assert!(snapshot.by_address(ip("10.0.0.1")).is_none());
        let [fault] = snapshot.faults() else {
            panic!("{:?}", snapshot.faults())
        };
        assert_eq!(fault.subject, "address 10.0.0.1");
        assert_eq!(
            fault.message,
            "Pod a/one and Pod b/two claim this address, so its owner is not known: connections to \
             it are refused until only one object has it."
        );
    }

    #[test]
    fn a_service_behind_which_nothing_is_known_is_a_fault() {
        let mut mesh = parts();
        let mut web = service("a/web", &["10.96.0.1"], 80, TargetPort::Number(80));
        web.selector.clear();
        let headless = Service {
            name: ObjectName::new("a", "headless"),
            addresses: Vec::new(),
            ..web.clone()
        };
        mesh.services = vec![web, headless];
        let snapshot = Snapshot::new(mesh.clone());
        let [fault] = snapshot.faults() else {
            panic!("{:?}", snapshot.faults())
        };
        assert_eq!(fault.subject, "Service a/web");
        mesh.endpoint_slices.push(slice("a/web", &[], 80));
        assert!(Snapshot::new(mesh).faults().is_empty());
    }

    #[test]
    fn pods_on_the_node_network_share_an_address_without_fault() {
        let mut mesh = parts();
        for name in ["a/one", "a/two"] {
            mesh.workloads.push(Workload {
                membership: Membership::Never(NeverEnrolled::HostNetwork),
                ..pod(name, &["192.168.0.1"])
            });
        }
        let snapshot = Snapshot::new(mesh);
        assert!(snapshot.by_address(ip("192.168.0.1")).is_none());
        assert!(snapshot.faults().is_empty());
    }

    #[test]
    fn snapshots_of_equal_parts_are_equal() {
        let mut mesh = parts();
        mesh.workloads.push(pod("a/one", &["10.0.0.1"]));
        let same = Snapshot::new(mesh.clone());
        assert_eq!(Snapshot::new(mesh.clone()), same);
        mesh.workloads[0].ready = false;
        assert_ne!(Snapshot::new(mesh), same);
    }
}
