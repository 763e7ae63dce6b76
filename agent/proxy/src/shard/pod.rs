//! A pod as one shard serves it: what its connections need, and when they are judged again or closed.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::watch;

use crate::connection::ConnectionEnd;
use crate::connection::registry::Registry;
use crate::connection::stats::ShardStats;
use crate::failed::FailedDestinations;
use crate::handoff::Neighbours;
use crate::hbone::TunnelPool;
use crate::limits::places::PlaceSource;
use crate::limits::{PodCaps, ProxyLimits};
use crate::shard::tasks::PodTasks;
use crate::verdict::{Judge, PodRemoval, Requirement, Termination};
use ambit_admission::UnverifiedSource;
use ambit_authorizer::Authorizer;
use ambit_datapath::PodDatapath;
use ambit_identity::WorkloadCertificates;
use ambit_jwt::KeyCache;
use ambit_model::Workload;
use ambit_observe::events::RecentEvents;
use ambit_policy::MeshView;

/// What the connections of a pod need on one shard, and the tasks that carry them.
#[derive(Debug)]
pub(crate) struct ServedPod {
    pub(crate) workload: Arc<Workload>,
    pub(crate) datapath: PodDatapath,
    pub(crate) certificates: WorkloadCertificates,
    pub(crate) pool: TunnelPool,
    pub(crate) caps: PodCaps,
    pub(crate) limits: ProxyLimits,
    pub(crate) registry: Rc<Registry>,
    pub(crate) stats: Rc<ShardStats>,
    pub(crate) events: Arc<RecentEvents>,
    pub(crate) mesh: watch::Receiver<Arc<MeshView>>,
    pub(crate) keys: Arc<KeyCache>,
    pub(crate) authorizer: Authorizer,
    /// The pods of this shard, this one too.
    pub(crate) neighbours: Rc<Neighbours>,
    pub(crate) tasks: PodTasks,
    pub(crate) failed: FailedDestinations,
}

impl ServedPod {
    /// Returns the current view of the mesh.
    pub(crate) fn view(&self) -> Arc<MeshView> {
        Arc::clone(&self.mesh.borrow())
    }

    /// Returns the pod as one end of a connection.
    pub(crate) fn connection_end(&self, address: SocketAddr) -> ConnectionEnd {
        ConnectionEnd {
            workload: Some(self.workload.name.clone()),
            identity: Some(self.certificates.identity().clone()),
            address,
        }
    }

    /// Returns the pod's first address of the same family as `other`.
    pub(crate) fn address_like(&self, other: IpAddr) -> Option<IpAddr> {
        let same_family = |own: &&IpAddr| own.is_ipv4() == other.is_ipv4();
        self.datapath.addresses().iter().find(same_family).copied()
    }

    /// Whether `address` is one of the pod's addresses.
    pub(crate) fn has_address(&self, address: IpAddr) -> bool {
        self.datapath.addresses().contains(&address.to_canonical())
    }

    /// Returns the source that a connection from `address` counts towards until it has proved an identity.
    pub(crate) fn unverified_source(&self, address: IpAddr) -> PlaceSource {
        let mesh = self.mesh.borrow();
        PlaceSource::Unverified(match mesh.snapshot.by_address(address) {
            Some(pod) => UnverifiedSource::Namespace(Arc::clone(&pod.name.namespace)),
            None => UnverifiedSource::of(address),
        })
    }

    /// Checks by the current view of the mesh that a connection may go on.
    ///
    /// # Errors
    /// Why it has to end.
    pub(crate) fn still_holds(&self, requirement: &Requirement) -> Result<(), Termination> {
        Judge::new(&self.view(), &self.workload).still_holds(requirement)
    }

    /// Judges every connection again. Returns how many it ended. Failed destinations that have changed may be
    /// dialled again.
    pub(crate) fn judge_again(&self) -> usize {
        let view = self.view();
        self.failed.forget_changed(&view.snapshot);
        let judge = Judge::new(&view, &self.workload);
        self.registry
            .judge(|requirement| judge.still_holds(requirement))
    }

    /// Stops accepting, and waits until the pod has no connections but those to authorizers.
    pub(crate) async fn drain(&self) {
        self.tasks.drain();
        self.registry.emptied().await;
    }

    /// Ends everything: listeners, tunnels, deliveries. Returns when all have ended.
    pub(crate) async fn close(&self, removal: PodRemoval) {
        self.registry
            .judge(|_| Err(Termination::PodRemoved(removal)));
        self.tasks.close().await;
        self.registry.handed_back().await;
        self.pool.close();
    }
}
