//! Small meshes for tests.

#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests call them"
)]

use std::collections::{BTreeMap, BTreeSet};

use super::{
    AppProtocol, EndpointSlice, EndpointState, IstioClaim, Membership, MeshRanges, MeshSettings,
    ObjectName, Revision, Service, ServicePort, SliceEndpoint, SlicePort, SnapshotParts,
    TargetPort, TrustBundle, TrustDomain, Workload, WorkloadIdentity,
};

/// An empty mesh.
pub fn parts() -> SnapshotParts {
    SnapshotParts {
        trust_bundle: TrustBundle::without_aliases(
            TrustDomain::new("cluster.local").expect("valid"),
        ),
        root_namespace: "istio-system".into(),
        revision: Revision::default(),
        ranges: MeshRanges::default(),
        namespaces: BTreeMap::new(),
        workloads: Vec::new(),
        services: Vec::new(),
        endpoint_slices: Vec::new(),
        policies: Vec::new(),
        mesh_settings: MeshSettings::default(),
        faults: Vec::new(),
        complete: true,
    }
}

/// An opted-in, ready pod `namespace/name` with the label `app: web`.
pub fn pod(name: &str, addresses: &[&str]) -> Workload {
    let name = object_name(name);
    let trust_domain = TrustDomain::new("cluster.local").expect("valid");
    Workload {
        identity: WorkloadIdentity::new(trust_domain, &name.namespace, "default").expect("valid"),
        uid: name.to_string().into(),
        name,
        node: None,
        addresses: addresses
            .iter()
            .map(|a| a.parse().expect("valid"))
            .collect(),
        labels: app_web(),
        membership: Membership::OptedIn,
        ready: true,
        named_ports: BTreeMap::new(),
        probe_ports: BTreeSet::new(),
        netns: None,
        istio_claim: IstioClaim::None,
    }
}

/// A Service of one undeclared port that selects the pods of [`pod`] in its namespace.
pub fn service(name: &str, addresses: &[&str], port: u16, target: TargetPort) -> Service {
    Service {
        name: object_name(name),
        addresses: addresses
            .iter()
            .map(|a| a.parse().expect("valid"))
            .collect(),
        ports: vec![ServicePort {
            name: None,
            port,
            target,
            protocol: AppProtocol::Opaque,
        }],
        selector: app_web(),
    }
}

/// A slice of the Service of this name, with an unnamed port. Each address is a ready endpoint.
pub fn slice(service: &str, addresses: &[&str], port: u16) -> EndpointSlice {
    let service = object_name(service);
    let endpoint = |text: &&str| SliceEndpoint {
        addresses: vec![text.parse().expect("valid")],
        state: EndpointState::Ready,
    };
    EndpointSlice {
        name: ObjectName::new(
            std::sync::Arc::clone(&service.namespace),
            format!("{}-1", service.name),
        ),
        service,
        ports: vec![SlicePort { name: None, port }],
        endpoints: addresses.iter().map(endpoint).collect(),
    }
}

fn app_web() -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), "web".to_owned())])
}

fn object_name(text: &str) -> ObjectName {
    let (namespace, name) = text.split_once('/').expect("namespace/name");
    ObjectName::new(namespace, name)
}
