//! Makes the node follow the model: enrols, updates and removes its pods, and gives each view to
//! the proxy once the kernel's tables say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ambit_common::{MeshClass, NetnsCookie};
use ipnet::IpNet;
use tokio::sync::watch;

use super::enrol::netns_path;
use super::pods::{FailedPod, LocalPod, PodReport, Stage};
use super::rules::{Occasion, PodRules};
use crate::datapath::netns::NetnsHandle;
use crate::datapath::{Change, EnrolledPod, Enroller, MeshTable, Tables, close_passed};
use crate::identity::Identities;
use crate::model::{ObjectName, Snapshot, Workload};
use crate::policy::MeshView;
use crate::proxy::{PodRemoval, Proxy};

/// What the reconciler drives.
pub(super) struct Parts {
    /// This node's name, as `spec.nodeName` has it.
    pub(super) node: Arc<str>,
    /// The kernel side of pods.
    pub(super) enroller: Enroller,
    /// The kernel's table of destinations.
    pub(super) mesh: MeshTable,
    /// The policy tables.
    pub(super) tables: Tables,
    /// The shards.
    pub(super) proxy: Arc<Proxy>,
    /// Certificates.
    pub(super) identities: Identities,
    /// Where views are published.
    pub(super) views: watch::Sender<Arc<MeshView>>,
    /// Where the state of each pod of this node is published.
    pub(super) reports: watch::Sender<Vec<PodReport>>,
}

/// Follows the model.
pub(super) struct Reconciler {
    pub(super) parts: Parts,
    pub(super) pods: BTreeMap<ObjectName, LocalPod>,
    classes: Vec<(IpNet, MeshClass)>,
    leftovers: Leftovers,
}

/// Whether pods of an earlier agent that the model does not know may still be in the kernel.
#[derive(PartialEq, Eq)]
enum Leftovers {
    /// They may: the configuration has not been complete yet.
    Kept,
    /// They have been removed.
    Removed,
}

impl Reconciler {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            parts,
            pods: BTreeMap::new(),
            classes: Vec::new(),
            leftovers: Leftovers::Kept,
        }
    }

    /// Follows a new snapshot.
    pub(super) async fn follow(&mut self, snapshot: Arc<Snapshot>) {
        let view = Arc::new(MeshView::new(snapshot));
        let wanted = self.wanted(&view.snapshot);
        self.remove_unwanted(&view.snapshot, &wanted).await;
        self.write_classes(&view.snapshot);
        self.update_open(&view, &wanted);
        self.parts.views.send_replace(Arc::clone(&view));
        for workload in wanted.into_values() {
            if !self.pods.contains_key(&workload.name) {
                self.enrol(&view, workload, None, 1).await;
            }
        }
        self.remove_leftovers(&view.snapshot);
        self.judge_again().await;
        self.report();
    }

    /// Tries failed pods again, and notices pods whose network namespace has been replaced.
    pub(super) async fn tick(&mut self, now: Instant) {
        let view = Arc::clone(&self.parts.views.borrow());
        self.remove_replaced().await;
        let due: Vec<_> = self.pods.values().filter_map(|pod| due(pod, now)).collect();
        for (workload, attempts) in due {
            let kernel = self.take_failed(&workload.name);
            self.enrol(&view, workload, kernel, attempts + 1).await;
        }
        if let Err(error) = self.parts.tables.sweep(now) {
            tracing::warn!(%error, "old policy sets could not be removed from the kernel");
        }
        self.report();
    }

    /// Judges again the connections that exist: those of the proxy, then those of the kernel.
    pub(super) async fn judge_again(&self) {
        let view = Arc::clone(&self.parts.views.borrow());
        match self.parts.proxy.judge_again().await {
            Ok(0) => {}
            Ok(ended) => tracing::info!(ended, "connections ended by a change"),
            Err(error) => tracing::error!(%error, "connections could not be judged again"),
        }
        for pod in self.pods.values() {
            self.sweep(&view, pod, Occasion::Change);
        }
    }

    /// This node's pods that are opted in, by name.
    fn wanted(&self, snapshot: &Snapshot) -> BTreeMap<ObjectName, Arc<Workload>> {
        let local = snapshot.workloads().iter().filter(|workload| {
            workload.is_enrolled() && workload.node.as_deref() == Some(&*self.parts.node)
        });
        local
            .map(|workload| (workload.name.clone(), Arc::clone(workload)))
            .collect()
    }

    async fn remove_unwanted(
        &mut self,
        snapshot: &Snapshot,
        wanted: &BTreeMap<ObjectName, Arc<Workload>>,
    ) {
        let unwanted: Vec<_> = self
            .pods
            .values()
            .filter_map(|pod| Some((pod.workload.name.clone(), removal(snapshot, wanted, pod)?)))
            .collect();
        for (name, reason) in unwanted {
            self.remove(&name, reason).await;
        }
    }

    async fn remove_replaced(&mut self) {
        let replaced: Vec<_> = self.pods.values().filter(|pod| is_replaced(pod)).collect();
        let names: Vec<_> = replaced
            .into_iter()
            .map(|pod| pod.workload.name.clone())
            .collect();
        for name in names {
            let Some(pod) = self.pods.get(&name) else {
                continue;
            };
            let workload = Arc::clone(&pod.workload);
            self.remove(&name, PodRemoval::Replaced).await;
            let view = Arc::clone(&self.parts.views.borrow());
            self.enrol(&view, workload, None, 1).await;
        }
    }

    /// Takes a pod out of the mesh: its connections and listeners first.
    async fn remove(&mut self, name: &ObjectName, reason: PodRemoval) {
        let Some(pod) = self.pods.remove(name) else {
            return;
        };
        let kernel = match pod.stage {
            Stage::Open(open) => {
                let removed = self
                    .parts
                    .proxy
                    .remove_pod(open.kernel.cookie(), reason)
                    .await;
                if let Err(error) = removed {
                    tracing::error!(pod = %name, %error, "the proxy could not let the pod go");
                }
                Some(open.kernel)
            }
            Stage::Failed(failed) => failed.kernel,
        };
        if let Some(kernel) = kernel
            && let Err(error) = self.parts.enroller.remove(kernel)
        {
            tracing::error!(pod = %name, %error, "the pod could not be removed from the kernel");
        }
        tracing::info!(pod = %name, %reason, "pod removed from the mesh");
    }

    fn write_classes(&mut self, snapshot: &Snapshot) {
        self.classes = snapshot.mesh_classes();
        if let Err(error) = self.parts.mesh.replace(&self.classes) {
            tracing::error!(%error, "the table of destinations could not be brought up to date");
        }
    }

    /// Brings pods that are served up to date, or closes them while the configuration is unknown.
    fn update_open(&mut self, view: &MeshView, wanted: &BTreeMap<ObjectName, Arc<Workload>>) {
        for (name, pod) in &mut self.pods {
            let (Some(workload), Stage::Open(open)) = (wanted.get(name), &mut pod.stage) else {
                continue;
            };
            let policies = view.policies.for_workload(workload);
            match self
                .parts
                .enroller
                .update(&mut open.kernel, workload, &policies)
            {
                Ok(Change::Policies) => tracing::info!(pod = %name, "policies changed"),
                Ok(Change::Addresses | Change::None) => {}
                Err(error) => {
                    tracing::error!(pod = %name, %error, "the kernel could not follow a change");
                }
            }
            pod.workload = Arc::clone(workload);
        }
    }

    fn take_failed(&mut self, name: &ObjectName) -> Option<EnrolledPod> {
        match self.pods.remove(name)?.stage {
            Stage::Failed(failed) => failed.kernel,
            Stage::Open(_) => None,
        }
    }

    /// Enrols a pod, `attempt` being its number in a row; `kernel` is what an earlier one left.
    async fn enrol(
        &mut self,
        view: &MeshView,
        workload: Arc<Workload>,
        mut kernel: Option<EnrolledPod>,
        attempt: u32,
    ) {
        let stage = match self.serve(view, &workload, &mut kernel).await {
            Ok(open) => {
                tracing::info!(pod = %workload.name, identity = %workload.identity, "pod enrolled");
                Stage::Open(Box::new(open))
            }
            Err(error) => {
                let reason = error.to_string();
                tracing::warn!(pod = %workload.name, attempt, %reason, "pod not enrolled");
                Stage::Failed(Box::new(FailedPod::new(
                    kernel,
                    reason,
                    attempt,
                    Instant::now(),
                )))
            }
        };
        let pod = LocalPod { workload, stage };
        self.sweep(view, &pod, Occasion::Enrolment);
        self.pods.insert(pod.workload.name.clone(), pod);
    }

    /// Closes what no proxy carries and policy does not let go on.
    fn sweep(&self, view: &MeshView, pod: &LocalPod, occasion: Occasion) {
        let Stage::Open(open) = &pod.stage else {
            return;
        };
        let rules = PodRules {
            workload: &pod.workload,
            policies: view.policies.for_workload(&pod.workload),
            classes: &self.classes,
            node: &node_addresses(),
            occasion,
        };
        match close_passed(&open.kernel, &pod.workload.addresses, &rules) {
            Ok(0) => {}
            Ok(closed) => tracing::info!(
                pod = %pod.workload.name, closed,
                "connections that no proxy carries were closed: policy does not allow them"
            ),
            Err(error) => tracing::error!(
                pod = %pod.workload.name, %error, "the pod's connections could not be judged again"
            ),
        }
    }

    /// Removes pods of an earlier agent that the first complete configuration does not know.
    fn remove_leftovers(&mut self, snapshot: &Snapshot) {
        if self.leftovers == Leftovers::Removed || !snapshot.is_complete() {
            return;
        }
        let known: BTreeSet<NetnsCookie> = self
            .pods
            .values()
            .filter_map(|pod| Some(pod.kernel()?.cookie()))
            .collect();
        match self.parts.enroller.remove_leftovers(&known) {
            Ok(()) => self.leftovers = Leftovers::Removed,
            Err(error) => tracing::error!(%error, "pods of an earlier agent are still enrolled"),
        }
    }

    fn report(&self) {
        let reports: Vec<_> = self.pods.values().map(LocalPod::report).collect();
        self.parts.reports.send_if_modified(|current| {
            let changed = *current != reports;
            *current = reports;
            changed
        });
    }
}

/// Why a pod is to be removed, or `None`.
fn removal(
    snapshot: &Snapshot,
    wanted: &BTreeMap<ObjectName, Arc<Workload>>,
    pod: &LocalPod,
) -> Option<PodRemoval> {
    let known = &pod.workload;
    match wanted.get(&known.name) {
        Some(now) if is_same_pod(known, now) => None,
        Some(_) => Some(PodRemoval::Replaced),
        None if snapshot.workload(&known.name).is_some() => Some(PodRemoval::OptedOut),
        None => Some(PodRemoval::Deleted),
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

fn due(pod: &LocalPod, now: Instant) -> Option<(Arc<Workload>, u32)> {
    match &pod.stage {
        Stage::Failed(failed) if failed.retry_at <= now => {
            Some((Arc::clone(&pod.workload), failed.attempts))
        }
        Stage::Failed(_) | Stage::Open(_) => None,
    }
}

/// The node's own addresses. Without them a probe that is under way is judged as plaintext, which
/// is the stricter case.
fn node_addresses() -> BTreeSet<IpAddr> {
    let addresses = NetnsHandle::current().and_then(|own| own.addresses());
    addresses.unwrap_or_default().into_iter().collect()
}
