//! How a pod stops being served.
//!
//! A pod that is opted in and not served is closed in both directions. So its network namespace is
//! closed whenever a pod stops being served, and taken out of the kernel in two cases only:
//!
//! | what happens to a served pod | its network namespace |
//! |---|---|
//! | its own label or its namespace's opts it out | leaves the kernel |
//! | the namespace ends: no process, path or socket keeps it | leaves the kernel after the kernel has destroyed it |
//! | its path cannot be opened any more, or is not a network namespace | stays served |
//! | it names another path, or none; another namespace is at its path | kept closed |
//! | another pod, another `spec.nodeName`, a phase that has ended, no object | kept closed |
//! | its Namespace object is gone and the pod itself has no label | kept closed |
//! | its spec says that it is never enrolled (node network, sidecar, runtime class) | kept closed |
//! | its annotations say that it is Istio's | stays served: see [`super::claims`] |
//! | another pod names its network namespace | stays served: see [`super::enrol`] |
//! | its uid, identity or addresses change | closed until it is served anew |
//! | a listener, the proxy, a table or a descriptor fails | closed until it is served anew |
//! | it has no certificate yet after a restart of the agent | closed after ten seconds, or as soon as anything changes |
//! | its certificate expires | served, and neither end of a tunnel accepts it |
//! | the configuration breaks | stays served, by the last good configuration |
//! | the agent starts and cannot read its configuration in full | closed |
//! | the agent ends | stays as it is, without listeners: its mesh traffic is refused |
//!
//! The agent holds no file of a namespace that it keeps closed, because its own sockets would keep the
//! namespace alive. The namespace is a leftover (see [`super::leftovers`]) until it is gone, its pod is
//! opted out, or its pod names it again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::claims::claimed;
use super::enrol::netns_path;
use super::leftovers::opts_out;
use super::pods::{ClosedPod, LocalPod, Stage};
use super::reconcile::Reconciler;
use super::sweep::ClosedRules;
use ambit_datapath::netns::NetnsHandle;
use ambit_datapath::{EnrolledPod, close_passed, reset_agents};
use ambit_model::{ObjectName, Snapshot, Workload};
use ambit_proxy::PodRemoval;

/// How a pod stops being served.
enum Departure {
    /// Its objects opt it out: it leaves the kernel.
    OptedOut,
    /// It is no longer served, and its network namespace is kept closed.
    KeptClosed(PodRemoval),
    /// It is served anew with what its object says, and stays closed in between: its network
    /// namespace is the same, so its processes may be too.
    ServedAnew,
}

impl Reconciler {
    /// Stops serving the pods that the model does not want as they are.
    pub(super) async fn let_go(
        &mut self,
        snapshot: &Snapshot,
        wanted: &BTreeMap<ObjectName, Arc<Workload>>,
    ) {
        let node = Arc::clone(&self.parts.node);
        let departures = self.pods.values().filter_map(|pod| {
            let departure = departure(snapshot, &node, wanted, pod)?;
            Some((pod.workload.name.clone(), departure))
        });
        for (name, departure) in departures.collect::<Vec<_>>() {
            match departure {
                Departure::OptedOut => self.remove(&name).await,
                Departure::KeptClosed(removal) => self.keep_closed(&name, removal).await,
                Departure::ServedAnew => {
                    self.close(&name, PodRemoval::Replaced, ClosedPod::due)
                        .await;
                }
            }
        }
    }

    /// Stops serving pods whose path leads to another network namespace now, and has them served there.
    pub(super) async fn let_go_of_replaced(&mut self, now: Instant) {
        let replaced = self.pods.values().filter(|pod| is_replaced(pod));
        let replaced: Vec<_> = replaced.map(|pod| Arc::clone(&pod.workload)).collect();
        for workload in replaced {
            let name = workload.name.clone();
            self.keep_closed(&name, PodRemoval::Replaced).await;
            let stage = Stage::Closed(Box::new(ClosedPod::due(None, now)));
            self.pods.insert(name, LocalPod { workload, stage });
        }
    }

    /// Closes a pod that cannot be served any more, and schedules another attempt.
    pub(super) async fn close_failed(&mut self, name: &ObjectName, reason: String) {
        tracing::error!(pod = %name, %reason, "pod closed");
        self.close(name, PodRemoval::EnrolmentFailed, |kernel, now| {
            ClosedPod::failed(kernel, reason, 1, now)
        })
        .await;
    }

    /// Closes pods that an earlier agent left served and that are not served, and those that could not be
    /// closed before.
    pub(super) fn shut_unserved(&mut self, now: Instant) {
        for pod in self.pods.values_mut() {
            if let Stage::Closed(closed) = &mut pod.stage
                && closed.is_to_be_shut(now)
            {
                self.parts.enroller.close_unserved(closed.kernel.as_mut());
            }
        }
    }

    async fn close(
        &mut self,
        name: &ObjectName,
        removal: PodRemoval,
        closed: impl FnOnce(Option<EnrolledPod>, Instant) -> ClosedPod,
    ) {
        let Some(LocalPod { workload, stage }) = self.pods.remove(name) else {
            return;
        };
        let kernel = self.stop(name, stage, removal).await;
        let stage = Stage::Closed(Box::new(closed(kernel, Instant::now())));
        self.pods.insert(name.clone(), LocalPod { workload, stage });
    }

    /// Stops serving a pod whose network namespace stays closed, and releases the namespace, so that it
    /// can end.
    async fn keep_closed(&mut self, name: &ObjectName, removal: PodRemoval) {
        let Some(LocalPod { workload, stage }) = self.pods.remove(name) else {
            return;
        };
        let Some(mut kernel) = self.stop(name, stage, removal).await else {
            return;
        };
        self.parts.enroller.close_unserved(Some(&mut kernel));
        let rules = ClosedRules {
            classes: &self.classes,
        };
        let agents = self.parts.enroller.agent_sockets();
        if let Err(error) = close_passed(&kernel, agents, &workload.addresses, &rules) {
            tracing::error!(pod = %name, %error, "the pod's connections could not be closed");
        }
        if let Err(error) = reset_agents(&kernel, agents) {
            tracing::error!(pod = %name, %error, "the agent's connections could not be reset");
        }
        tracing::info!(
            pod = %name, reason = %removal,
            "pod no longer served: its network namespace stays closed until it is gone or opted out"
        );
    }

    /// Takes a pod out of the kernel, after its connections and listeners.
    async fn remove(&mut self, name: &ObjectName) {
        let Some(pod) = self.pods.remove(name) else {
            return;
        };
        let removal = PodRemoval::OptedOut;
        if let Some(kernel) = self.stop(name, pod.stage, removal).await
            && let Err(error) = self.parts.enroller.remove(kernel.cookie())
        {
            // From here on it is a leftover.
            tracing::error!(pod = %name, %error, "the pod could not be removed from the kernel");
        }
        tracing::info!(pod = %name, reason = %removal, "pod removed from the mesh");
    }

    /// Closes a pod in the kernel first, so that there are no new connections, then in the proxy.
    async fn stop(
        &mut self,
        name: &ObjectName,
        stage: Stage,
        removal: PodRemoval,
    ) -> Option<EnrolledPod> {
        match stage {
            Stage::LeftToIstio(_) => None,
            Stage::Closed(closed) => closed.kernel,
            Stage::Served(served) => {
                let mut kernel = served.kernel;
                self.parts.enroller.close_unserved(Some(&mut kernel));
                let removed = self.parts.proxy.remove_pod(kernel.cookie(), removal);
                if let Err(error) = removed.await {
                    tracing::error!(pod = %name, %error, "the proxy could not let the pod go");
                }
                Some(kernel)
            }
        }
    }
}

/// How a pod stops being served; `None` if it stays as it is.
fn departure(
    snapshot: &Snapshot,
    node: &str,
    wanted: &BTreeMap<ObjectName, Arc<Workload>>,
    pod: &LocalPod,
) -> Option<Departure> {
    let known = &pod.workload;
    match wanted.get(&known.name) {
        Some(now) if is_same_pod(known, now) => None,
        Some(now) if known.netns == now.netns && !is_replaced(pod) => Some(Departure::ServedAnew),
        Some(_) => Some(Departure::KeptClosed(PodRemoval::Replaced)),
        None => match snapshot.workload(&known.name) {
            None => Some(Departure::KeptClosed(PodRemoval::Deleted)),
            Some(now) if opts_out(snapshot, node, now) && is_about(now, pod) => {
                Some(Departure::OptedOut)
            }
            Some(_) => Some(Departure::KeptClosed(PodRemoval::NotServed)),
        },
    }
}

/// Whether an object describes the pod that is in the kernel: it has the same uid, or names the same
/// network namespace.
fn is_about(now: &Workload, pod: &LocalPod) -> bool {
    let Some(kernel) = pod.kernel() else {
        return true;
    };
    let inode = kernel.netns().inode().ok();
    kernel.owner().is(now) || (inode.is_some() && claimed(now) == inode)
}

/// Whether a pod is unchanged in what it was enrolled with. The proxy uses its addresses and identity.
fn is_same_pod(known: &Workload, now: &Workload) -> bool {
    known.uid == now.uid
        && known.netns == now.netns
        && known.identity == now.identity
        && known.addresses == now.addresses
}

/// Whether another network namespace is at the pod's path. If the path cannot be opened, nothing has
/// replaced it: the configuration says when the pod is gone.
fn is_replaced(pod: &LocalPod) -> bool {
    let (Some(kernel), Ok(path)) = (pod.kernel(), netns_path(&pod.workload)) else {
        return false;
    };
    let cookie = NetnsHandle::open(path).and_then(|netns| netns.cookie());
    cookie.is_ok_and(|cookie| cookie != kernel.cookie())
}
