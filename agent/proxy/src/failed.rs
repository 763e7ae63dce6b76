//! Destinations that a pod has just failed to reach: the connect hook refuses the next connects to them.
//!
//! A redirected connect always succeeds, and a failure shows only afterwards, as a reset. A client with several
//! addresses for a name would take that for an answer and never try the next address. If all endpoints have just
//! failed, the connect itself is refused instead, as without a mesh.

use std::cell::RefCell;

use tokio::time::Instant;

use crate::route::{Route, route};
use ambit_datapath::RefusedConnects;
use ambit_model::{OriginalDestination, PodEndpoint, ServiceEndpoint, Snapshot};

/// The most destinations of a pod and a shard that are refused at the same time. Connects to others go to the
/// proxy. The kernel has room for 2,048 times as many.
const MOST: usize = 8;

/// The failed destinations of one pod on one shard.
#[derive(Debug)]
pub(crate) struct FailedDestinations<R = RefusedConnects>(RefCell<Vec<FailedDestination<R>>>);

#[derive(Debug)]
struct FailedDestination<R> {
    dialled: OriginalDestination,
    /// Those that failed: all that there were.
    endpoints: Vec<ServiceEndpoint>,
    until: Instant,
    /// The hook refuses connects until this is dropped.
    _refused: R,
}

impl<R> Default for FailedDestinations<R> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<R> FailedDestinations<R> {
    /// Adds a destination of which all `endpoints` have just failed, and refuses connects to it. It is not added if
    /// the snapshot has others for it by now.
    pub(crate) fn add(
        &self,
        dialled: OriginalDestination,
        endpoints: Vec<ServiceEndpoint>,
        snapshot: &Snapshot,
        refuse: impl FnOnce(OriginalDestination) -> Option<R>,
    ) {
        let now = Instant::now();
        let mut failed = self.0.borrow_mut();
        failed.retain(|one| now < one.until && one.dialled != dialled);
        if failed.len() >= MOST || !is_current(&endpoints, dialled, snapshot) {
            return;
        }
        failed.extend(refuse(dialled).map(|refused| FailedDestination {
            dialled,
            endpoints,
            until: now + RefusedConnects::LASTS,
            _refused: refused,
        }));
    }

    /// Forgets the destinations that have other endpoints in this snapshot, or whose endpoints have changed.
    pub(crate) fn forget_changed(&self, snapshot: &Snapshot) {
        let now = Instant::now();
        self.0
            .borrow_mut()
            .retain(|one| now < one.until && is_current(&one.endpoints, one.dialled, snapshot));
    }
}

/// Whether a destination has exactly these endpoints, as they were.
fn is_current(
    endpoints: &[ServiceEndpoint],
    dialled: OriginalDestination,
    snapshot: &Snapshot,
) -> bool {
    match route(snapshot.destination(dialled.0), dialled.0) {
        Route::Endpoints(now) => {
            now.len() == endpoints.len()
                && now
                    .iter()
                    .all(|one| endpoints.iter().any(|other| is_same(one, other)))
        }
        Route::Hold(_) | Route::Refuse(_) => false,
    }
}

fn is_same(one: &ServiceEndpoint, other: &ServiceEndpoint) -> bool {
    match (one, other) {
        (ServiceEndpoint::Outside(one), ServiceEndpoint::Outside(other)) => one == other,
        (ServiceEndpoint::Pod(one), ServiceEndpoint::Pod(other)) => {
            let PodEndpoint { workload, address } = one;
            *address == other.address && *workload == other.workload
        }
        (ServiceEndpoint::Outside(_), ServiceEndpoint::Pod(_))
        | (ServiceEndpoint::Pod(_), ServiceEndpoint::Outside(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::rc::Rc;

    use super::*;
    use ambit_model::testing::{parts, pod, service};
    use ambit_model::{TargetPort, Workload};

    const CLUSTER_IP: &str = "10.96.0.1";

    fn snapshot(pods: Vec<Workload>) -> Snapshot {
        let mut mesh = parts();
        mesh.workloads = pods;
        mesh.services.push(service(
            "a/all",
            &[CLUSTER_IP],
            80,
            TargetPort::Number(8080),
        ));
        Snapshot::new(mesh)
    }

    fn endpoints(snapshot: &Snapshot, dialled: OriginalDestination) -> Vec<ServiceEndpoint> {
        match route(snapshot.destination(dialled.0), dialled.0) {
            Route::Endpoints(endpoints) => endpoints,
            other => panic!("{other:?}"),
        }
    }

    fn at(address: &str, port: u16) -> OriginalDestination {
        OriginalDestination(SocketAddr::new(address.parse().expect("an address"), port))
    }

    #[test]
    fn a_failure_is_forgotten_when_the_destination_changes_in_any_way() {
        let (one, two) = (pod("a/one", &["10.0.0.1"]), pod("a/two", &["10.0.0.2"]));
        let unready = Workload {
            ready: false,
            ..two.clone()
        };
        let successor = Workload {
            uid: "another".into(),
            ..one.clone()
        };
        let before = snapshot(vec![one.clone(), unready.clone()]);
        let (all, pod_one, pod_two) = (at(CLUSTER_IP, 80), at("10.0.0.1", 80), at("10.0.0.2", 80));
        let failed = |to| endpoints(&before, to);
        let mut same = failed(all);
        same.reverse();
        assert!(is_current(&same, all, &before));
        let ready = snapshot(vec![one.clone(), two]);
        assert!(
            !is_current(&failed(all), all, &ready),
            "an endpoint became ready"
        );
        assert!(
            !is_current(&failed(pod_two), pod_two, &ready),
            "the pod became ready"
        );
        assert!(
            is_current(&failed(pod_one), pod_one, &ready),
            "not concerned"
        );
        let replaced = snapshot(vec![successor, unready]);
        assert!(!is_current(&failed(all), all, &replaced), "another pod");
        assert!(
            !is_current(&failed(pod_one), pod_one, &replaced),
            "another pod"
        );
        let gone = snapshot(Vec::new());
        assert!(
            !is_current(&failed(pod_one), pod_one, &gone),
            "the pod is gone"
        );
    }

    /// What the hook refuses, as the guards say.
    type Refused = Rc<RefCell<Vec<OriginalDestination>>>;

    struct Guard(Refused, OriginalDestination);

    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.borrow_mut().retain(|one| *one != self.1);
        }
    }

    /// Lets the destination's endpoints fail.
    fn fail(
        failed: &FailedDestinations<Guard>,
        refused: &Refused,
        dialled: OriginalDestination,
        snapshot: &Snapshot,
    ) {
        failed.add(dialled, endpoints(snapshot, dialled), snapshot, |dialled| {
            refused.borrow_mut().push(dialled);
            Some(Guard(Rc::clone(refused), dialled))
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_has_few_and_they_run_out() {
        let snapshot = snapshot(vec![pod("a/one", &["10.0.0.1"])]);
        let (failed, refused) = (FailedDestinations::default(), Refused::default());
        for port in 1..=20 {
            fail(&failed, &refused, at("10.0.0.1", port), &snapshot);
            fail(&failed, &refused, at("10.0.0.1", port), &snapshot);
        }
        let first: Vec<_> = (1..=8).map(|port| at("10.0.0.1", port)).collect();
        assert_eq!(*refused.borrow(), first);
        tokio::time::advance(RefusedConnects::LASTS).await;
        fail(&failed, &refused, at("10.0.0.1", 20), &snapshot);
        assert_eq!(*refused.borrow(), [at("10.0.0.1", 20)]);
        tokio::time::advance(RefusedConnects::LASTS).await;
        failed.forget_changed(&snapshot);
        assert!(refused.borrow().is_empty());
        fail(&failed, &refused, at("10.0.0.1", 20), &snapshot);
        drop(failed);
        assert!(refused.borrow().is_empty(), "the pod is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_changed_is_refused_no_more() {
        let (one, two) = (pod("a/one", &["10.0.0.1"]), pod("a/two", &["10.0.0.2"]));
        let before = snapshot(vec![one.clone()]);
        let after = snapshot(vec![one, two]);
        let (failed, refused) = (FailedDestinations::default(), Refused::default());
        let (all, single) = (at(CLUSTER_IP, 80), at("10.0.0.1", 80));
        fail(&failed, &refused, all, &before);
        fail(&failed, &refused, single, &before);
        failed.forget_changed(&before);
        assert_eq!(*refused.borrow(), [all, single]);
        failed.forget_changed(&after);
        assert_eq!(*refused.borrow(), [single]);
        let late = endpoints(&before, all);
        failed.add(all, late, &after, |_| {
            panic!("it has another endpoint by now")
        });
    }
}
