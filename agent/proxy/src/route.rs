//! Routes a connection from a pod: pure decisions, from the model and the original destination.

use std::net::SocketAddr;

use ambit_common::HBONE_PORT;
use rand::Rng;
use rand::seq::SliceRandom;

use crate::connection::Path;
use crate::connection::refusal::Refusal;
use ambit_model::{Destination, Membership, ServiceEndpoint, Workload};

/// How many endpoints of a Service are tried before a connection is refused.
const ATTEMPTS: usize = 3;

/// Where a connection from a pod goes.
#[derive(Debug)]
pub(crate) enum Route {
    /// To one of these endpoints; there is at least one.
    Endpoints(Vec<ServiceEndpoint>),
    /// Nowhere yet: the model may learn of the address in a moment. If it does not, this is the refusal.
    Hold(Refusal),
    /// Nowhere: it is refused.
    Refuse(Refusal),
}

/// Decides where a connection goes whose original destination is `dialled`.
pub(crate) fn route(destination: Destination, dialled: SocketAddr) -> Route {
    match destination {
        Destination::Workload(target) => endpoints(vec![ServiceEndpoint::Pod(target)]),
        Destination::Service {
            service,
            endpoints: none,
            unknown,
        } if none.is_empty() => match unknown.first() {
            None => Route::Refuse(Refusal::NoReadyEndpoint { service, dialled }),
            Some(&endpoint) => Route::Hold(Refusal::UnknownEndpoint { service, endpoint }),
        },
        Destination::Service {
            endpoints: some, ..
        } => endpoints(some),
        Destination::Unexplained(service) => {
            Route::Hold(Refusal::NoEndpointsKnown { service, dialled })
        }
        Destination::NoSuchPort(service) => Route::Refuse(Refusal::NoSuchPort { service, dialled }),
        Destination::Ambiguous(claimants) => {
            Route::Refuse(Refusal::Ambiguous { dialled, claimants })
        }
        Destination::Unknown => Route::Hold(Refusal::Unknown(dialled)),
    }
}

/// Refuses an endpoint on HBONE's port: the agent would answer there, not the application.
fn endpoints(endpoints: Vec<ServiceEndpoint>) -> Route {
    let mut addresses = endpoints.iter().map(ServiceEndpoint::address);
    match addresses.find(|address| address.port() == HBONE_PORT) {
        Some(address) => Route::Refuse(Refusal::HbonePort(address)),
        None => Route::Endpoints(endpoints),
    }
}

/// Returns the path from `caller` to an endpoint.
///
/// A pod that is opted in but never enrolled gets a tunnel, since its objects do not say that it is
/// outside the mesh: the connection is refused unless another implementation answers on its HBONE port.
pub(crate) fn path_to(endpoint: &Workload, caller: &Workload) -> Path {
    if caller.uid == endpoint.uid {
        return Path::OwnPod;
    }
    match endpoint.membership {
        Membership::OptedIn | Membership::Never(_) => Path::Tunnel,
        Membership::NotOptedIn => Path::Plaintext,
    }
}

/// The endpoints to try for one connection.
pub(crate) struct Attempts {
    /// In random order. Each endpoint is equally likely to be the first.
    pub(crate) chosen: Vec<ServiceEndpoint>,
    /// How many endpoints are not tried.
    pub(crate) left_out: usize,
}

/// Chooses the endpoints to try.
pub(crate) fn attempts(mut endpoints: Vec<ServiceEndpoint>, rng: &mut impl Rng) -> Attempts {
    endpoints.shuffle(rng);
    let left_out = endpoints.len().saturating_sub(ATTEMPTS);
    endpoints.truncate(ATTEMPTS);
    Attempts {
        chosen: endpoints,
        left_out,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use ambit_model::{IstioClaim, NeverEnrolled, ObjectName, PodEndpoint};

    /// A ready pod of namespace `shop` with one address, whose uid is its name.
    fn workload(name: &str, address: &str, membership: Membership) -> Workload {
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
    fn target(workload: Workload) -> PodEndpoint {
        let address = SocketAddr::new(workload.addresses[0], 8080);
        PodEndpoint {
            workload: Arc::new(workload),
            address,
        }
    }

    fn dialled() -> SocketAddr {
        "10.96.0.1:80".parse().expect("valid")
    }

    fn service() -> ObjectName {
        ObjectName::new("shop", "orders")
    }

    fn pod(name: &str, address: &str) -> PodEndpoint {
        target(workload(name, address, Membership::OptedIn))
    }

    fn refusal(destination: Destination) -> Refusal {
        match route(destination, dialled()) {
            Route::Refuse(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pod_and_a_service_with_endpoints_have_a_route() {
        let orders = pod("orders", "10.1.0.2");
        for destination in [
            Destination::Workload(orders.clone()),
            Destination::Service {
                service: service(),
                endpoints: vec![ServiceEndpoint::Pod(orders)],
                unknown: Vec::new(),
            },
        ] {
            match route(destination, dialled()) {
                Route::Endpoints(endpoints) => assert_eq!(endpoints.len(), 1),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_destination_without_an_endpoint_is_refused() {
        let empty = Destination::Service {
            service: service(),
            endpoints: Vec::new(),
            unknown: Vec::new(),
        };
        assert!(matches!(refusal(empty), Refusal::NoReadyEndpoint { .. }));
        let no_port = Destination::NoSuchPort(service());
        assert!(matches!(refusal(no_port), Refusal::NoSuchPort { .. }));
        let claimed = Destination::Ambiguous(vec![service(), ObjectName::new("shop", "thief")]);
        let refused = refusal(claimed);
        assert!(
            refused.to_string().ends_with("shop/orders, shop/thief"),
            "{refused}"
        );
    }

    #[test]
    fn an_unknown_address_is_held() {
        let held = route(Destination::Unknown, dialled());
        assert!(matches!(held, Route::Hold(Refusal::Unknown(address)) if address == dialled()));
    }

    #[test]
    fn a_service_with_unknown_endpoints_is_held() {
        let held = route(Destination::Unexplained(service()), dialled());
        assert!(matches!(
            held,
            Route::Hold(Refusal::NoEndpointsKnown { .. })
        ));
        let with_unknown = |endpoints| Destination::Service {
            service: service(),
            endpoints,
            unknown: vec!["10.1.0.9:80".parse().expect("valid")],
        };
        let held = route(with_unknown(Vec::new()), dialled());
        assert!(matches!(held, Route::Hold(Refusal::UnknownEndpoint { .. })));
        let outside = ServiceEndpoint::Outside("192.0.2.1:80".parse().expect("valid"));
        match route(with_unknown(vec![outside]), dialled()) {
            Route::Endpoints(some) => assert_eq!(some.len(), 1, "the known one"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_tunnel_port_is_refused() {
        let mut orders = pod("orders", "10.1.0.2");
        orders.address.set_port(HBONE_PORT);
        let refused = refusal(Destination::Workload(orders));
        assert!(matches!(refused, Refusal::HbonePort(_)));
        let outside = Destination::Service {
            service: service(),
            endpoints: vec![ServiceEndpoint::Outside(SocketAddr::from((
                [192, 0, 2, 1],
                HBONE_PORT,
            )))],
            unknown: Vec::new(),
        };
        assert!(matches!(refusal(outside), Refusal::HbonePort(_)));
    }

    #[test]
    fn only_an_endpoint_that_is_not_opted_in_is_reached_in_plaintext() {
        let caller = workload("frontend", "10.1.0.1", Membership::OptedIn);
        for (membership, expected) in [
            (Membership::OptedIn, Path::Tunnel),
            (Membership::Never(NeverEnrolled::IstioSidecar), Path::Tunnel),
            (Membership::Never(NeverEnrolled::HostNetwork), Path::Tunnel),
            (Membership::NotOptedIn, Path::Plaintext),
        ] {
            let endpoint = workload("orders", "10.1.0.2", membership);
            assert_eq!(path_to(&endpoint, &caller), expected);
        }
    }

    #[test]
    fn a_pod_is_itself_by_its_uid_and_not_by_its_address_or_name() {
        let caller = workload("frontend", "10.1.0.1", Membership::OptedIn);
        assert_eq!(path_to(&caller.clone(), &caller), Path::OwnPod);
        let successor = Workload {
            uid: "another".into(),
            ..caller.clone()
        };
        assert_eq!(path_to(&successor, &caller), Path::Tunnel);
    }

    #[test]
    fn a_few_endpoints_are_tried_and_any_can_be_the_first() {
        let endpoints: Vec<ServiceEndpoint> = (1..=5)
            .map(|n| ServiceEndpoint::Pod(pod(&format!("orders-{n}"), &format!("10.1.0.{n}"))))
            .collect();
        let mut firsts = BTreeSet::new();
        for _ in 0..1000 {
            let Attempts { chosen, left_out } = attempts(endpoints.clone(), &mut rand::rng());
            let distinct: BTreeSet<SocketAddr> =
                chosen.iter().map(ServiceEndpoint::address).collect();
            assert_eq!((distinct.len(), left_out), (ATTEMPTS, 5 - ATTEMPTS));
            firsts.insert(chosen[0].address());
        }
        assert_eq!(firsts.len(), 5);
        let few = attempts(endpoints[..ATTEMPTS].to_vec(), &mut rand::rng());
        assert_eq!((few.chosen.len(), few.left_out), (ATTEMPTS, 0));
    }
}
