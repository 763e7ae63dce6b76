//! Objects for the tests of the proxy.

use std::net::SocketAddr;
use std::sync::Arc;

use ambit_model::{IstioClaim, Membership, ObjectName, PodEndpoint, Workload};

/// A ready pod of namespace `shop` with one address, whose uid is its name.
pub(crate) fn workload(name: &str, address: &str, membership: Membership) -> Workload {
    let identity = format!("cluster.local/ns/shop/sa/{name}");
    Workload {
        name: ObjectName::new("shop", name),
        uid: name.into(),
        node: None,
        addresses: vec![address.parse().expect("an address")],
        identity: identity.parse().expect("an identity"),
        labels: [("app".to_owned(), name.to_owned())].into(),
        membership,
        ready: true,
        named_ports: [].into(),
        probe_ports: [].into(),
        netns: None,
        istio_claim: IstioClaim::None,
    }
}

/// A pod's port 8080.
pub(crate) fn target(workload: Workload) -> PodEndpoint {
    let address = SocketAddr::new(workload.addresses[0], 8080);
    PodEndpoint {
        workload: Arc::new(workload),
        address,
    }
}
