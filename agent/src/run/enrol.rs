//! The steps that take a pod into the mesh. Whatever fails, the pod stays closed from the first
//! step on.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::pods::{ClosedPod, LocalPod, OpenPod, Stage};
use super::reconcile::{Reconciler, node_addresses};
use super::rules::Occasion;
use crate::datapath::foreign::{foreign_programs_of_netns, own_programs};
use crate::datapath::{EnrolError, EnrolledPod};
use crate::identity::{CertificateUnavailable, WorkloadCertificates};
use crate::model::{NetnsReference, ObjectName, Workload};
use crate::policy::MeshView;
use crate::proxy::{PodAttachment, PodRemoval, ProxyError};
use crate::source::files::NETNS_ANNOTATION;

/// Why a pod is not served. It is closed, or the kernel does not have it.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    /// No source says where the pod's network is.
    #[error(
        "nothing says where its network namespace is; annotate the pod with {NETNS_ANNOTATION}"
    )]
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
    /// It is not known what applies to the pod.
    #[error("the configuration is not known in full; see the faults in `ambit status`")]
    Incomplete,
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
        let due = self.pods.values().filter(|pod| is_due(pod, now));
        let due: Vec<_> = due.map(|pod| pod.workload.name.clone()).collect();
        for name in due {
            self.enrol(view, &name).await;
        }
    }

    async fn enrol(&mut self, view: &MeshView, name: &ObjectName) {
        let Some(LocalPod { workload, stage }) = self.pods.remove(name) else {
            return;
        };
        let stage = match stage {
            Stage::Open(open) => Stage::Open(open),
            Stage::Closed(closed) => self.try_to_serve(view, &workload, *closed).await,
        };
        let pod = LocalPod { workload, stage };
        self.sweep(view, &pod, &node_addresses(), Occasion::Enrolment);
        self.pods.insert(name.clone(), pod);
    }

    async fn try_to_serve(
        &mut self,
        view: &MeshView,
        workload: &Arc<Workload>,
        closed: ClosedPod,
    ) -> Stage {
        let (mut kernel, attempt) = (closed.kernel, closed.attempts + 1);
        match self.serve(view, workload, &mut kernel).await {
            Ok(open) => {
                tracing::info!(pod = %workload.name, identity = %workload.identity, "pod enrolled");
                Stage::Open(Box::new(open))
            }
            Err(ServeError::Certificate(unavailable)) => {
                tracing::info!(pod = %workload.name, reason = %unavailable, "pod waits");
                let certificates = self.parts.identities.hold(&workload.identity);
                let waits = ClosedPod::uncertified(kernel, certificates);
                Stage::Closed(Box::new(waits))
            }
            Err(error) => {
                let reason = error.to_string();
                tracing::warn!(pod = %workload.name, attempt, %reason, "pod not enrolled");
                let failed = ClosedPod::failed(kernel, reason, attempt, Instant::now());
                Stage::Closed(Box::new(failed))
            }
        }
    }

    /// Takes a pod into the mesh. `kernel` is what an earlier attempt left in the kernel, and
    /// receives what this one leaves where it fails.
    async fn serve(
        &mut self,
        view: &MeshView,
        workload: &Arc<Workload>,
        kernel: &mut Option<EnrolledPod>,
    ) -> Result<OpenPod, ServeError> {
        let path = netns_path(workload)?;
        let mut pod = match kernel.take() {
            Some(closed) => closed,
            None => {
                let enrolled = self.pods.values().filter_map(LocalPod::kernel);
                self.parts.enroller.close(workload, path, enrolled)?
            }
        };
        match self.open(view, workload, &mut pod).await {
            Ok(certificates) => {
                warn_of_foreign_programs(workload, &pod);
                Ok(OpenPod {
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

    /// Certificate, listeners, proxy, and only then the kernel's word that the pod is open.
    async fn open(
        &mut self,
        view: &MeshView,
        workload: &Arc<Workload>,
        pod: &mut EnrolledPod,
    ) -> Result<WorkloadCertificates, ServeError> {
        if !view.snapshot.is_complete() {
            self.parts.enroller.shut(pod)?;
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
        self.parts.enroller.open(pod, workload, &policies)?;
        Ok(certificates)
    }
}

/// A socket that another sk_lookup program selects beats a refusal of Ambit's.
fn warn_of_foreign_programs(workload: &Workload, pod: &EnrolledPod) {
    let found = own_programs().and_then(|own| foreign_programs_of_netns(pod.netns(), &own));
    match found {
        Ok(found) if found.is_empty() => {}
        Ok(found) => tracing::warn!(
            pod = %workload.name, programs = ?found,
            "others have sk_lookup programs in the pod, which can let in what policy refuses"
        ),
        Err(error) => tracing::warn!(pod = %workload.name, %error, "no look for others' programs"),
    }
}

fn is_due(pod: &LocalPod, now: Instant) -> bool {
    match &pod.stage {
        Stage::Open(_) => false,
        Stage::Closed(closed) => closed.retry.is_due(now),
    }
}
