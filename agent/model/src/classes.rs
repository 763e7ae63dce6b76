//! The ranges of the mesh, and what the connect hooks do with each network.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ambit_common::MeshClass;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::backends::Backend;
use super::snapshot::AddressOwner;
use super::{DataplaneMode, Membership, NeverEnrolled, Service, Snapshot, Workload};

/// The addresses that belong to the mesh even if no object has them: the cluster's pod and Service ranges
/// without their exclusions.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MeshRanges {
    /// Pod and Service CIDRs.
    pub included: Vec<IpNet>,
    /// Parts of these that are outside the mesh.
    pub excluded: Vec<IpNet>,
}

impl MeshRanges {
    /// Whether an address is in the ranges. The longest prefix decides; an exclusion wins over an inclusion
    /// of the same length.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let longest = |ranges: &[IpNet]| {
            ranges
                .iter()
                .filter(|net| net.contains(&address))
                .map(IpNet::prefix_len)
                .max()
        };
        match (longest(&self.included), longest(&self.excluded)) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(included), Some(excluded)) => included > excluded,
        }
    }
}

impl Snapshot {
    /// What the connect hooks do with each network: sorted, each network once.
    ///
    /// Objects take precedence over the configured ranges. If several objects have one address, the strictest
    /// class wins: [`MeshClass::Proxy`], which refuses ambiguous destinations.
    pub fn mesh_classes(&self) -> Vec<(IpNet, MeshClass)> {
        let mut classes = BTreeMap::new();
        for net in &self.ranges().included {
            classes.insert(net.trunc(), MeshClass::Proxy);
        }
        for net in &self.ranges().excluded {
            classes.insert(net.trunc(), MeshClass::Outside);
        }
        classes.extend(self.address_classes());
        classes.into_iter().collect()
    }

    /// What the connect hooks do with one address; `None` if it does not belong to the mesh.
    pub fn mesh_class(&self, address: IpAddr) -> Option<MeshClass> {
        let address = address.to_canonical();
        let of_objects = self.owners(address).iter().map(|owner| match *owner {
            AddressOwner::Workload(index) => workload_class(&self.workloads()[index]),
            AddressOwner::Service(index) => self.service_class(index, &self.services()[index]),
        });
        let of_ranges = || self.ranges().contains(address).then_some(MeshClass::Proxy);
        of_objects.reduce(stricter).or_else(of_ranges)
    }

    fn address_classes(&self) -> BTreeMap<IpNet, MeshClass> {
        let of_workloads = self.workloads().iter().flat_map(|workload| {
            let class = workload_class(workload);
            workload
                .mesh_addresses()
                .map(move |address| (address, class))
        });
        let of_services = self
            .services()
            .iter()
            .enumerate()
            .flat_map(|(index, service)| {
                let class = self.service_class(index, service);
                service
                    .addresses
                    .iter()
                    .map(move |address| (*address, class))
            });
        let mut classes = BTreeMap::new();
        for (address, class) in of_workloads.chain(of_services) {
            classes
                .entry(IpNet::from(IpAddr::to_canonical(&address)))
                .and_modify(|known| *known = stricter(*known, class))
                .or_insert(class);
        }
        classes
    }

    /// A Service passes only if everything behind it is known and outside the mesh: see
    /// [`super::backends`]. A Service whose pods are not known yet follows its namespace, because kube-proxy
    /// may learn of the first pod before the agent does, and would carry plaintext to it.
    fn service_class(&self, index: usize, service: &Service) -> MeshClass {
        let selected = self.members(index).map(|pod| workload_class(pod));
        let endpoints = self.slices(index).flat_map(|slice| &slice.endpoints);
        let addresses = endpoints.flat_map(|endpoint| &endpoint.addresses);
        let listed = addresses.map(|address| self.backend_class(*address));
        selected
            .chain(listed)
            .reduce(stricter)
            .unwrap_or_else(|| self.empty_class(service))
    }

    /// Listed endpoints count whether they are ready or not.
    fn backend_class(&self, address: IpAddr) -> MeshClass {
        match self.backend(address) {
            Backend::Pod(pod) => workload_class(pod),
            Backend::Outside => MeshClass::NotOptedIn,
            Backend::Unknown => MeshClass::Proxy,
        }
    }

    /// The class of a Service that has no known pods.
    fn empty_class(&self, service: &Service) -> MeshClass {
        let namespace = self.namespaces().get(&service.name.namespace);
        let mode = namespace.map_or(DataplaneMode::Unset, |info| info.dataplane_mode());
        match mode {
            _ if service.selector.is_empty() => MeshClass::Proxy,
            DataplaneMode::Ambient => MeshClass::Proxy,
            DataplaneMode::Outside | DataplaneMode::Unset => MeshClass::NotOptedIn,
        }
    }
}

/// Connections to a pod that is opted in but never enrolled go to the proxy, which cannot reach it by a
/// tunnel and refuses. A pod on the node's network is outside, because the address is not its own.
fn workload_class(workload: &Workload) -> MeshClass {
    match workload.membership {
        Membership::NotOptedIn | Membership::Never(NeverEnrolled::HostNetwork) => {
            MeshClass::NotOptedIn
        }
        Membership::OptedIn
        | Membership::Never(NeverEnrolled::IstioSidecar | NeverEnrolled::ForeignKernel) => {
            MeshClass::Proxy
        }
    }
}

fn stricter(one: MeshClass, other: MeshClass) -> MeshClass {
    match (one, other) {
        (MeshClass::Proxy, _) | (_, MeshClass::Proxy) => MeshClass::Proxy,
        (MeshClass::NotOptedIn, _) | (_, MeshClass::NotOptedIn) => MeshClass::NotOptedIn,
        (MeshClass::Outside, MeshClass::Outside) => MeshClass::Outside,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{parts, pod, service, slice};
    use super::super::{DATAPLANE_MODE_LABEL, NamespaceInfo, SnapshotParts, TargetPort};
    use super::*;

    #[test]
    fn the_longest_prefix_decides() {
        let net = |text: &str| text.parse::<IpNet>().expect("valid");
        let ranges = MeshRanges {
            included: vec![net("10.0.0.0/8"), net("10.1.2.0/24"), net("fd00::/16")],
            excluded: vec![net("10.1.0.0/16")],
        };
        for (address, inside) in [
            ("10.9.9.9", true),
            ("::ffff:10.9.9.9", true),
            ("10.1.9.9", false),
            ("10.1.2.9", true),
            ("11.0.0.1", false),
            ("fd00::1", true),
            ("fe80::1", false),
        ] {
            assert_eq!(
                ranges.contains(address.parse().expect("valid")),
                inside,
                "{address}"
            );
        }
    }

    const NEVER: [NeverEnrolled; 2] = [NeverEnrolled::IstioSidecar, NeverEnrolled::ForeignKernel];

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    fn classes(mesh: SnapshotParts) -> Vec<(String, MeshClass)> {
        let classes = Snapshot::new(mesh).mesh_classes();
        classes
            .into_iter()
            .map(|(net, class)| (net.to_string(), class))
            .collect()
    }

    fn class_of(mesh: SnapshotParts, text: &str) -> Option<MeshClass> {
        let mesh = Snapshot::new(mesh);
        let classes = mesh.mesh_classes();
        let class = classes
            .into_iter()
            .find(|(known, _)| *known == net(text))
            .map(|(_, class)| class);
        assert_eq!(mesh.mesh_class(net(text).addr()), class);
        class
    }

    fn with(membership: Membership, name: &str, addresses: &[&str]) -> Workload {
        Workload {
            membership,
            ..pod(name, addresses)
        }
    }

    fn web_service() -> Service {
        service("a/web", &["10.96.0.1"], 80, TargetPort::Number(80))
    }

    #[test]
    fn ranges_and_their_exclusions() {
        let mut mesh = parts();
        mesh.ranges.included = vec![net("10.1.2.3/8"), net("fd00::/16"), net("10.9.0.0/16")];
        mesh.ranges.excluded = vec![net("10.5.0.0/16"), net("10.9.0.0/16")];
        assert_eq!(
            classes(mesh),
            [
                ("10.0.0.0/8".to_owned(), MeshClass::Proxy),
                ("10.5.0.0/16".to_owned(), MeshClass::Outside),
                ("10.9.0.0/16".to_owned(), MeshClass::Outside),
                ("fd00::/16".to_owned(), MeshClass::Proxy),
            ]
        );
    }

    #[test]
    fn a_pod_address_has_the_class_of_its_enrolment() {
        let mut mesh = parts();
        mesh.workloads = vec![
            with(Membership::OptedIn, "a/in", &["10.0.0.1", "fd00::1"]),
            with(Membership::NotOptedIn, "a/out", &["::ffff:10.0.0.2"]),
            with(
                Membership::Never(NeverEnrolled::HostNetwork),
                "a/host",
                &["192.168.0.1"],
            ),
        ];
        assert_eq!(
            classes(mesh),
            [
                ("10.0.0.1/32".to_owned(), MeshClass::Proxy),
                ("10.0.0.2/32".to_owned(), MeshClass::NotOptedIn),
                ("fd00::1/128".to_owned(), MeshClass::Proxy),
            ]
        );
    }

    #[test]
    fn pods_that_are_never_enrolled_are_refused_rather_than_passed() {
        for reason in NEVER {
            let mut mesh = parts();
            mesh.workloads
                .push(with(Membership::Never(reason), "a/x", &["10.0.0.1"]));
            mesh.services.push(web_service());
            assert_eq!(
                class_of(mesh.clone(), "10.0.0.1/32"),
                Some(MeshClass::Proxy)
            );
            assert_eq!(class_of(mesh, "10.96.0.1/32"), Some(MeshClass::Proxy));
        }
    }

    #[test]
    fn objects_beat_ranges_of_the_same_length() {
        let mut mesh = parts();
        mesh.ranges.included = vec![net("10.0.0.2/32")];
        mesh.ranges.excluded = vec![net("10.0.0.1/32")];
        mesh.workloads = vec![
            with(Membership::OptedIn, "a/in", &["10.0.0.1"]),
            with(Membership::NotOptedIn, "a/out", &["10.0.0.2"]),
        ];
        assert_eq!(
            class_of(mesh.clone(), "10.0.0.1/32"),
            Some(MeshClass::Proxy)
        );
        assert_eq!(class_of(mesh, "10.0.0.2/32"), Some(MeshClass::NotOptedIn));
    }

    #[test]
    fn one_opted_in_pod_ready_or_not_makes_a_service_the_proxys() {
        let mut mesh = parts();
        mesh.services.push(web_service());
        mesh.workloads
            .push(with(Membership::NotOptedIn, "a/out", &["10.0.0.2"]));
        mesh.workloads
            .push(with(Membership::OptedIn, "b/elsewhere", &["10.0.0.3"]));
        assert_eq!(
            class_of(mesh.clone(), "10.96.0.1/32"),
            Some(MeshClass::NotOptedIn)
        );
        mesh.workloads.push(Workload {
            ready: false,
            ..pod("a/starting", &[])
        });
        assert_eq!(class_of(mesh, "10.96.0.1/32"), Some(MeshClass::Proxy));
    }

    #[test]
    fn a_service_without_pods_follows_its_namespace_unless_nothing_says_what_is_behind_it() {
        let mut mesh = parts();
        mesh.services.push(web_service());
        assert_eq!(
            class_of(mesh.clone(), "10.96.0.1/32"),
            Some(MeshClass::NotOptedIn)
        );
        let labels = [(DATAPLANE_MODE_LABEL.to_owned(), "ambient".to_owned())].into();
        mesh.namespaces.insert("a".into(), NamespaceInfo { labels });
        assert_eq!(
            class_of(mesh.clone(), "10.96.0.1/32"),
            Some(MeshClass::Proxy)
        );
        mesh.namespaces.clear();
        mesh.services[0].selector.clear();
        assert_eq!(class_of(mesh, "10.96.0.1/32"), Some(MeshClass::Proxy));
    }

    #[test]
    fn a_service_passes_only_if_all_that_its_slices_list_is_outside() {
        let (opted_in, out) = ("10.0.0.1", "10.0.0.2");
        let (unknown, outside, contested) = ("10.0.0.9", "192.0.2.1", "10.0.0.3");
        for (addresses, class) in [
            (vec![], MeshClass::Proxy),
            (vec![out], MeshClass::NotOptedIn),
            (vec![outside], MeshClass::NotOptedIn),
            (vec![out, outside], MeshClass::NotOptedIn),
            (vec![opted_in], MeshClass::Proxy),
            (vec![out, opted_in], MeshClass::Proxy),
            (vec![outside, unknown], MeshClass::Proxy),
            (vec![contested], MeshClass::Proxy),
            (vec!["10.96.0.1"], MeshClass::Proxy),
        ] {
            let mut mesh = parts();
            mesh.ranges.included = vec![net("10.0.0.0/8")];
            mesh.workloads = vec![
                pod("b/in", &[opted_in]),
                with(Membership::NotOptedIn, "b/out", &[out]),
                with(Membership::NotOptedIn, "b/one", &[contested]),
                with(Membership::NotOptedIn, "b/two", &[contested]),
            ];
            let mut service = web_service();
            service.selector.clear();
            mesh.services.push(service);
            mesh.endpoint_slices.push(slice("a/web", &addresses, 8080));
            assert_eq!(class_of(mesh, "10.96.0.1/32"), Some(class), "{addresses:?}");
        }
    }

    #[test]
    fn a_slice_does_not_hide_a_pod_that_the_service_selects() {
        let mut mesh = parts();
        mesh.services.push(web_service());
        mesh.workloads = vec![
            pod("a/in", &["10.0.0.1"]),
            with(Membership::NotOptedIn, "b/out", &["10.0.0.2"]),
        ];
        mesh.endpoint_slices
            .push(slice("a/web", &["10.0.0.2"], 8080));
        assert_eq!(class_of(mesh, "10.96.0.1/32"), Some(MeshClass::Proxy));
    }

    fn enrolments() -> impl Strategy<Value = Membership> {
        prop_oneof![
            Just(Membership::OptedIn),
            Just(Membership::NotOptedIn),
            Just(Membership::Never(NeverEnrolled::HostNetwork)),
            proptest::sample::select(NEVER.to_vec()).prop_map(Membership::Never),
        ]
    }

    proptest! {
        /// Whatever objects claim an address, it passes only if none of them is opted in.
        #[test]
        fn an_address_passes_only_if_no_claimant_is_opted_in(
            claims in proptest::collection::vec((0u8..4, enrolments()), 0..12),
        ) {
            let mut mesh = parts();
            mesh.ranges.included = vec![net("10.0.0.0/24")];
            for (index, (host, membership)) in claims.iter().enumerate() {
                let address = format!("10.0.0.{host}");
                mesh.workloads.push(with(membership.clone(), &format!("a/{index}"), &[&address]));
            }
            let classes = Snapshot::new(mesh).mesh_classes();
            prop_assert!(classes.windows(2).all(|pair| pair[0].0 < pair[1].0));
            for (known, class) in classes.into_iter().filter(|(known, _)| known.prefix_len() == 32) {
                let claimants = claims.iter().filter(|(host, membership)| {
                    known == net(&format!("10.0.0.{host}/32"))
                        && *membership != Membership::Never(NeverEnrolled::HostNetwork)
                });
                let all_outside = claimants.clone().all(|(_, e)| *e == Membership::NotOptedIn);
                prop_assert!(claimants.count() > 0);
                prop_assert_eq!(all_outside, class == MeshClass::NotOptedIn);
            }
        }
    }
}
