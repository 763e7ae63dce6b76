//! Makes the node follow the model: enrols, updates and removes its pods, and gives each view to
//! the proxy once the kernel's tables say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use ambit_common::{MeshClass, NetnsCookie};
use ipnet::IpNet;
use tokio::sync::watch;

use super::kernel_faults::{KernelFaults, KernelTable};
use super::leftovers::ClosedNetns;
use super::pods::{ClosedPod, LocalPod, NodeReport, Stage};
use super::sweep::{SweepOccasion, node_addresses};
use ambit_datapath::{EnrolledPod, Enroller, EntryChange, MeshTable};
use ambit_identity::{Identities, WorkloadCertificates};
use ambit_jwt::KeyCache;
use ambit_model::{ObjectName, Snapshot, Workload, WorkloadIdentity};
use ambit_policy::MeshView;
use ambit_proxy::Proxy;

/// What the reconciler drives.
pub(super) struct ReconcilerParts {
    /// This node's name, as `spec.nodeName` has it.
    pub(super) node: Arc<str>,
    /// The kernel side of pods.
    pub(super) enroller: Enroller,
    /// The kernel's table of destinations.
    pub(super) mesh: MeshTable,
    /// The shards.
    pub(super) proxy: Arc<Proxy>,
    /// Certificates.
    pub(super) identities: Identities,
    /// The keys of those who issue tokens.
    pub(super) keys: Arc<KeyCache>,
    /// Publishes views.
    pub(super) views: watch::Sender<Arc<MeshView>>,
    /// Publishes the state of this node.
    pub(super) reports: watch::Sender<NodeReport>,
}

/// Follows the model.
pub(super) struct Reconciler {
    pub(super) parts: ReconcilerParts,
    pub(super) pods: BTreeMap<ObjectName, LocalPod>,
    /// Network namespaces that are kept closed, in which no pod is served.
    pub(super) kept: Vec<ClosedNetns>,
    /// Those of this node's pods, held as soon as the model has the pods.
    certificates: BTreeMap<WorkloadIdentity, WorkloadCertificates>,
    pub(super) classes: Vec<(IpNet, MeshClass)>,
    pub(super) faults: KernelFaults,
}

impl Reconciler {
    pub(super) fn new(parts: ReconcilerParts) -> Self {
        Self {
            parts,
            pods: BTreeMap::new(),
            kept: Vec::new(),
            certificates: BTreeMap::new(),
            classes: Vec::new(),
            faults: KernelFaults::default(),
        }
    }

    /// Follows a new snapshot.
    pub(super) async fn follow(&mut self, snapshot: Arc<Snapshot>) {
        let view = Arc::new(MeshView::new(snapshot));
        let wanted = self.wanted(&view.snapshot);
        self.hold_certificates(&wanted);
        self.let_go(&view.snapshot, &wanted).await;
        self.write_classes(&view.snapshot);
        self.parts.keys.wanted(view.policies.jwt_rules());
        self.update(&view, wanted).await;
        self.parts.views.send_replace(Arc::clone(&view));
        self.enrol_due(&view, Instant::now()).await;
        self.tend_leftovers(&view.snapshot);
        self.judge_again().await;
        self.report();
    }

    /// Retries what failed, and notices pods whose network namespace has been replaced.
    pub(super) async fn tick(&mut self, now: Instant) {
        let view = Arc::clone(&self.parts.views.borrow());
        self.let_go_of_replaced(now).await;
        if self.faults.concern(KernelTable::Destinations) {
            self.write_classes(&view.snapshot);
        }
        self.enrol_due(&view, now).await;
        self.shut_unserved(now);
        self.tend_leftovers(&view.snapshot);
        let swept = self.parts.enroller.sweep_policies(now);
        self.faults.note(KernelTable::Policies, swept);
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
        let node = node_addresses();
        for pod in self.pods.values() {
            self.sweep(&view, pod, &node, SweepOccasion::Change);
        }
    }

    /// This node's pods.
    pub(super) fn local<'a>(
        &self,
        snapshot: &'a Snapshot,
    ) -> impl Iterator<Item = &'a Arc<Workload>> {
        let node = Arc::clone(&self.parts.node);
        let all = snapshot.workloads().iter();
        all.filter(move |workload| workload.node.as_deref() == Some(&*node))
    }

    /// The network namespaces of the pods that are in the kernel.
    pub(super) fn served_netns(&self) -> BTreeSet<NetnsCookie> {
        let kernels = self.pods.values().filter_map(LocalPod::kernel);
        kernels.map(EnrolledPod::cookie).collect()
    }

    /// This node's pods that are opted in, by name.
    fn wanted(&self, snapshot: &Snapshot) -> BTreeMap<ObjectName, Arc<Workload>> {
        self.local(snapshot)
            .filter(|workload| workload.is_opted_in())
            .map(|workload| (workload.name.clone(), Arc::clone(workload)))
            .collect()
    }

    /// Asks for the certificates of the wanted pods before anything else, and for no others.
    fn hold_certificates(&mut self, wanted: &BTreeMap<ObjectName, Arc<Workload>>) {
        let identities: BTreeSet<_> = wanted.values().map(|pod| &pod.identity).collect();
        self.certificates
            .retain(|identity, _| identities.contains(identity));
        for identity in identities {
            if !self.certificates.contains_key(identity) {
                let held = self.parts.identities.hold(identity);
                self.certificates.insert(identity.clone(), held);
            }
        }
    }

    fn write_classes(&mut self, snapshot: &Snapshot) {
        self.classes = snapshot.mesh_classes();
        let written = self.parts.mesh.replace(&self.classes);
        self.faults.note(KernelTable::Destinations, written);
    }

    /// Brings the pods up to date, and adds new ones.
    async fn update(&mut self, view: &MeshView, wanted: BTreeMap<ObjectName, Arc<Workload>>) {
        for (name, workload) in wanted {
            let Some(pod) = self.pods.get_mut(&name) else {
                let stage = Stage::Closed(Box::new(ClosedPod::due(None, Instant::now())));
                self.pods.insert(name, LocalPod { workload, stage });
                continue;
            };
            pod.workload = Arc::clone(&workload);
            let served = match &mut pod.stage {
                Stage::Served(served) => served,
                // What an earlier agent left served does not follow the change.
                Stage::Closed(closed) => {
                    self.parts.enroller.close_unserved(closed.kernel.as_mut());
                    continue;
                }
                Stage::LeftToIstio(_) => continue,
            };
            let policies = view.policies.for_workload(&workload);
            let enroller = &mut self.parts.enroller;
            match enroller.update(&mut served.kernel, &workload, &policies) {
                Ok(EntryChange::Policies) => tracing::info!(pod = %name, "policies changed"),
                Ok(EntryChange::Addresses | EntryChange::None) => {}
                Err(error) => {
                    let reason = format!("the kernel could not follow a change: {error}");
                    self.close_failed(&name, reason).await;
                }
            }
        }
    }

    fn report(&self) {
        let report = NodeReport {
            pods: self
                .pods
                .values()
                .map(|pod| pod.report(&self.kept))
                .collect(),
            kept: self.kept.clone(),
            faults: self.ignored_claims().collect(),
            kernel_faults: self.faults.list(),
        };
        self.parts.reports.send_if_modified(|current| {
            let changed = *current != report;
            *current = report;
            changed
        });
    }
}
