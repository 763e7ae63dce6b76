//! How a pod leaves the mesh, or is closed because it is not what it was.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::enrol::netns_path;
use super::pods::{ClosedPod, Leftovers, LocalPod, Stage};
use super::reconcile::Reconciler;
use crate::datapath::EnrolledPod;
use crate::datapath::netns::NetnsHandle;
use crate::model::{ObjectName, Snapshot, Workload};
use crate::proxy::PodRemoval;

/// What becomes of a pod that is in the mesh.
enum Fate {
    /// It leaves the kernel.
    Leaves(PodRemoval),
    /// It is served anew with what its object says, and stays closed in between: its network
    /// namespace is the same, so its processes may be too.
    ServedAnew,
}

impl Reconciler {
    /// Lets go of the pods that the model does not want as they are.
    pub(super) async fn let_go(
        &mut self,
        snapshot: &Snapshot,
        wanted: &BTreeMap<ObjectName, Arc<Workload>>,
    ) {
        let fates: Vec<_> = self
            .pods
            .values()
            .filter_map(|pod| Some((pod.workload.name.clone(), fate(snapshot, wanted, pod)?)))
            .collect();
        for (name, fate) in fates {
            match fate {
                Fate::Leaves(removal) => self.remove(&name, removal).await,
                Fate::ServedAnew => {
                    self.close(&name, PodRemoval::Replaced, ClosedPod::due)
                        .await;
                }
            }
        }
    }

    /// Lets go of pods at whose place another network namespace is, and has them served there.
    pub(super) async fn let_go_of_replaced(&mut self, now: Instant) {
        let replaced = self.pods.values().filter(|pod| is_replaced(pod));
        let replaced: Vec<_> = replaced.map(|pod| Arc::clone(&pod.workload)).collect();
        for workload in replaced {
            let name = workload.name.clone();
            self.remove(&name, PodRemoval::Replaced).await;
            let stage = Stage::Closed(Box::new(ClosedPod::due(None, now)));
            self.pods.insert(name, LocalPod { workload, stage });
        }
    }

    /// Closes a pod that cannot be served any more, and has it tried again later.
    pub(super) async fn close_failed(&mut self, name: &ObjectName, reason: String) {
        tracing::error!(pod = %name, %reason, "pod closed");
        self.close(name, PodRemoval::EnrolmentFailed, |kernel, now| {
            ClosedPod::failed(kernel, reason, 1, now)
        })
        .await;
    }

    /// Closes a pod in the kernel first, so that nothing new comes, then in the proxy.
    async fn close(
        &mut self,
        name: &ObjectName,
        removal: PodRemoval,
        closed: impl FnOnce(Option<EnrolledPod>, Instant) -> ClosedPod,
    ) {
        let Some(LocalPod { workload, stage }) = self.pods.remove(name) else {
            return;
        };
        let kernel = match stage {
            Stage::Closed(closed) => closed.kernel,
            Stage::Open(open) => {
                let mut kernel = open.kernel;
                if let Err(error) = self.parts.enroller.shut(&mut kernel) {
                    // Without listeners its mesh traffic is refused all the same.
                    tracing::error!(pod = %name, %error, "the pod could not be shut in the kernel");
                }
                self.stop_serving(name, &kernel, removal).await;
                Some(kernel)
            }
        };
        let stage = Stage::Closed(Box::new(closed(kernel, Instant::now())));
        self.pods.insert(name.clone(), LocalPod { workload, stage });
    }

    /// Takes a pod out of the mesh: its connections and listeners first.
    async fn remove(&mut self, name: &ObjectName, removal: PodRemoval) {
        let Some(pod) = self.pods.remove(name) else {
            return;
        };
        let kernel = match pod.stage {
            Stage::Open(open) => {
                self.stop_serving(name, &open.kernel, removal).await;
                Some(open.kernel)
            }
            Stage::Closed(closed) => closed.kernel,
        };
        match kernel.map(|kernel| self.parts.enroller.remove(kernel)) {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::error!(pod = %name, %error, "the pod could not be removed from the kernel");
                self.leftovers = Leftovers::Kept;
            }
            None => self.leftovers = Leftovers::Kept,
        }
        tracing::info!(pod = %name, reason = %removal, "pod removed from the mesh");
    }

    async fn stop_serving(&self, name: &ObjectName, kernel: &EnrolledPod, removal: PodRemoval) {
        let removed = self.parts.proxy.remove_pod(kernel.cookie(), removal);
        if let Err(error) = removed.await {
            tracing::error!(pod = %name, %error, "the proxy could not let the pod go");
        }
    }

    /// Removes what the first complete configuration does not know. A pod that it does know, but
    /// whose network namespace it does not lead to, is told by its addresses and stays closed.
    pub(super) fn remove_leftovers(&mut self, snapshot: &Snapshot) {
        if self.leftovers == Leftovers::Removed || !snapshot.is_complete() {
            return;
        }
        let pods = self.pods.values();
        let known = pods
            .clone()
            .filter_map(|pod| Some(pod.kernel()?.cookie()))
            .collect();
        let unplaced: Vec<IpAddr> = pods
            .filter(|pod| pod.kernel().is_none())
            .flat_map(|pod| pod.workload.addresses.iter().copied())
            .collect();
        match self.parts.enroller.remove_leftovers(&known, &unplaced) {
            Ok(0) => self.leftovers = Leftovers::Removed,
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "pods of an earlier agent are still enrolled"),
        }
    }
}

/// What is to become of a pod; `None` where it stays as it is.
fn fate(
    snapshot: &Snapshot,
    wanted: &BTreeMap<ObjectName, Arc<Workload>>,
    pod: &LocalPod,
) -> Option<Fate> {
    let known = &pod.workload;
    match wanted.get(&known.name) {
        Some(now) if is_same_pod(known, now) => None,
        Some(now) if known.netns == now.netns && !is_replaced(pod) => Some(Fate::ServedAnew),
        Some(_) => Some(Fate::Leaves(PodRemoval::Replaced)),
        None if snapshot.workload(&known.name).is_some() => {
            Some(Fate::Leaves(PodRemoval::OptedOut))
        }
        None => Some(Fate::Leaves(PodRemoval::Deleted)),
    }
}

/// Whether what a pod was enrolled with still holds. Its addresses and identity are part of what
/// the proxy serves it with.
fn is_same_pod(known: &Workload, now: &Workload) -> bool {
    known.uid == now.uid
        && known.netns == now.netns
        && known.identity == now.identity
        && known.addresses == now.addresses
}

/// Whether another network namespace is at the place where the pod's was. One that cannot be
/// opened is no replacement: the pod's source says when it is gone.
fn is_replaced(pod: &LocalPod) -> bool {
    let (Some(kernel), Ok(path)) = (pod.kernel(), netns_path(&pod.workload)) else {
        return false;
    };
    let cookie = NetnsHandle::open(path).and_then(|netns| netns.cookie());
    cookie.is_ok_and(|cookie| cookie != kernel.cookie())
}
