//! The steps by which a pod comes to be served. From the first step on the pod is closed, and it stays
//! closed if a later one fails.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::claims::{Claims, claimed_ztunnel};
use super::pods::{ClosedPod, Exposure, LeftToIstio, LocalPod, ServedPod, Stage};
use super::reconcile::Reconciler;
use super::sweep::{SweepOccasion, node_addresses};
use ambit_datapath::foreign::{foreign_programs_of_netns, own_programs};
use ambit_datapath::{EnrolError, EnrolledPod, LocatedNetns, PodOwner, Ztunnel};
use ambit_identity::{CertificateUnavailable, WorkloadCertificates};
use ambit_model::{NetnsReference, ObjectName, Workload};
use ambit_policy::MeshView;
use ambit_proxy::{PodAttachment, PodRemoval, ProxyError};
use ambit_source::files::NETNS_ANNOTATION;

/// Why a pod is not served. It is closed, or not in the kernel.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    /// No source names the pod's network namespace.
    #[error("its network namespace is unknown; annotate the pod with {NETNS_ANNOTATION}")]
    NoNetns,
    /// The kernel side failed.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// It has no certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateUnavailable),
    /// The proxy does not serve it.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// Istio's ztunnel serves the pod.
    #[error("Istio's ztunnel (process {}) listens in it", .0.pid)]
    LeftToIstio(Ztunnel),
    /// The configuration that applies to the pod is not complete.
    #[error("the configuration is not known in full; see the faults in `ambit status`")]
    Incomplete,
}

impl ServeError {
    /// Whether the network namespace that the pod names is closed, or serves another pod.
    fn exposure(&self) -> Exposure {
        match self {
            Self::Enrol(EnrolError::OwnedNetns { .. } | EnrolError::ContestedNetns { .. }) => {
                Exposure::Guarded
            }
            Self::NoNetns
            | Self::Enrol(_)
            | Self::Certificate(_)
            | Self::Proxy(_)
            | Self::LeftToIstio(_)
            | Self::Incomplete => Exposure::Unknown,
        }
    }
}

/// The path of a pod's network namespace.
pub(super) fn netns_path(workload: &Workload) -> Result<&Path, ServeError> {
    match &workload.netns {
        Some(NetnsReference::Path(path)) => Ok(path),
        None => Err(ServeError::NoNetns),
    }
}

impl Reconciler {
    /// Serves the pods that wait for it.
    pub(super) async fn enrol_due(&mut self, view: &MeshView, now: Instant) {
        let due: Vec<_> = self.pods.values().filter(|pod| is_due(pod, now)).collect();
        let claims = if due.iter().any(|pod| pod.kernel().is_none()) {
            Claims::of(self.local(&view.snapshot))
        } else {
            Claims::default()
        };
        let due: Vec<_> = due.iter().map(|pod| pod.workload.name.clone()).collect();
        for name in due {
            self.enrol(view, &claims, &name).await;
        }
    }

    async fn enrol(&mut self, view: &MeshView, claims: &Claims, name: &ObjectName) {
        let Some(LocalPod { workload, stage }) = self.pods.remove(name) else {
            return;
        };
        let stage = match stage {
            Stage::Served(served) => Stage::Served(served),
            Stage::Closed(closed) => self.try_to_serve(view, claims, &workload, *closed).await,
            Stage::LeftToIstio(_) => {
                let due = ClosedPod::due(None, Instant::now());
                self.try_to_serve(view, claims, &workload, due).await
            }
        };
        let pod = LocalPod { workload, stage };
        self.sweep(view, &pod, &node_addresses(), SweepOccasion::Enrolment);
        self.pods.insert(name.clone(), pod);
    }

    async fn try_to_serve(
        &mut self,
        view: &MeshView,
        claims: &Claims,
        workload: &Arc<Workload>,
        closed: ClosedPod,
    ) -> Stage {
        let (mut kernel, attempt) = (closed.kernel, closed.attempts + 1);
        match self.serve(view, claims, workload, &mut kernel).await {
            Ok(served) => {
                tracing::info!(pod = %workload.name, identity = %workload.identity, "pod served");
                Stage::Served(Box::new(served))
            }
            Err(ServeError::Certificate(unavailable)) => {
                tracing::info!(pod = %workload.name, reason = %unavailable, "pod waits");
                let certificates = self.parts.identities.hold(&workload.identity);
                let waits = ClosedPod::uncertified(kernel, certificates, Instant::now());
                Stage::Closed(Box::new(waits))
            }
            Err(ServeError::LeftToIstio(ztunnel)) => {
                tracing::info!(pod = %workload.name, pid = ztunnel.pid, "pod left to Istio's ztunnel");
                Stage::LeftToIstio(LeftToIstio::new(ztunnel, Instant::now()))
            }
            Err(error) => {
                let reason = error.to_string();
                tracing::warn!(pod = %workload.name, attempt, %reason, "pod not served");
                self.parts.enroller.close_unserved(kernel.as_mut());
                let failed = ClosedPod::failed(kernel, reason, attempt, Instant::now());
                Stage::Closed(Box::new(failed.with_exposure(error.exposure())))
            }
        }
    }

    /// Serves a pod. `kernel` is what an earlier attempt left in the kernel, and
    /// receives what this one leaves if it fails.
    async fn serve(
        &mut self,
        view: &MeshView,
        claims: &Claims,
        workload: &Arc<Workload>,
        kernel: &mut Option<EnrolledPod>,
    ) -> Result<ServedPod, ServeError> {
        let mut pod = match kernel.take() {
            Some(closed) => closed,
            None => self.take_in(claims, workload)?,
        };
        match self.open(view, workload, &mut pod).await {
            Ok(certificates) => {
                warn_of_foreign_programs(workload, &pod);
                Ok(ServedPod {
                    kernel: pod,
                    _certificates: certificates,
                })
            }
            Err(error) => {
                let cookie = pod.cookie();
                *kernel = Some(pod);
                self.parts
                    .proxy
                    .remove_pod(cookie, PodRemoval::EnrolmentFailed)
                    .await?;
                Err(error)
            }
        }
    }

    /// Closes the network namespace that a pod names, if the pod may have it.
    fn take_in(
        &mut self,
        claims: &Claims,
        workload: &Arc<Workload>,
    ) -> Result<EnrolledPod, ServeError> {
        let path = netns_path(workload)?;
        let located = self.parts.enroller.locate(path)?;
        match self.owner(&located)? {
            Some(owner) if owner.pod == workload.name => {}
            Some(owner) => {
                let (path, owner) = (path.display().to_string(), owner.pod);
                return Err(EnrolError::OwnedNetns { path, owner }.into());
            }
            None => {
                self.refuse_contested(claims, workload, path, &located)?;
                if let Some(ztunnel) = claimed_ztunnel(workload, &located) {
                    return Err(ServeError::LeftToIstio(ztunnel));
                }
            }
        }
        Ok(self.parts.enroller.enrol(workload, located)?)
    }

    /// The pod that a network namespace was given to, by this agent or by an earlier one: it keeps the
    /// namespace while that is in the kernel.
    fn owner(&self, located: &LocatedNetns) -> Result<Option<PodOwner>, EnrolError> {
        let mut kernels = self.pods.values().filter_map(LocalPod::kernel);
        match kernels.find(|kernel| kernel.cookie() == located.cookie()) {
            Some(kernel) => Ok(Some(kernel.owner().clone())),
            None => self.parts.enroller.owner(located.cookie()),
        }
    }

    /// Closes a network namespace that several pods name and that none of them was given.
    fn refuse_contested(
        &mut self,
        claims: &Claims,
        workload: &Workload,
        path: &Path,
        located: &LocatedNetns,
    ) -> Result<(), EnrolError> {
        let others = claims.others(located.netns().inode()?, &workload.name);
        if others.is_empty() {
            return Ok(());
        }
        self.parts.enroller.close_unowned(located)?;
        let path = path.display().to_string();
        Err(EnrolError::ContestedNetns { path, others })
    }

    /// Certificate, listeners, proxy; only then does the kernel serve the pod.
    async fn open(
        &mut self,
        view: &MeshView,
        workload: &Arc<Workload>,
        pod: &mut EnrolledPod,
    ) -> Result<WorkloadCertificates, ServeError> {
        self.parts.enroller.hand_over(pod, workload)?;
        if !view.snapshot.is_complete() {
            self.parts.enroller.close(pod)?;
            return Err(ServeError::Incomplete);
        }
        let certificates = self.parts.identities.hold(&workload.identity);
        certificates.ready()?;
        let shards = self.parts.enroller.listen(pod, workload)?;
        let attachment = PodAttachment {
            workload: Arc::clone(workload),
            certificates: certificates.clone(),
            shards,
        };
        self.parts.proxy.add_pod(attachment).await?;
        let policies = view.policies.for_workload(workload);
        self.parts.enroller.serve(pod, workload, &policies)?;
        Ok(certificates)
    }
}

/// If another sk_lookup program selects a socket, that overrides a refusal of Ambit's.
fn warn_of_foreign_programs(workload: &Workload, pod: &EnrolledPod) {
    let found = own_programs().and_then(|own| foreign_programs_of_netns(pod.netns(), &own));
    match found {
        Ok(found) if found.is_empty() => {}
        Ok(found) => tracing::warn!(
            pod = %workload.name, programs = ?found,
            "others have sk_lookup programs in the pod, which can let in what policy refuses"
        ),
        Err(error) => {
            tracing::warn!(pod = %workload.name, %error, "others' programs could not be listed")
        }
    }
}

fn is_due(pod: &LocalPod, now: Instant) -> bool {
    match &pod.stage {
        Stage::Served(_) => false,
        Stage::Closed(closed) => closed.retry.is_due(now),
        Stage::LeftToIstio(left) => left.until <= now,
    }
}
