//! The pods of this node and their stages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_backoff::Backoff;
use ambit_common::{NetnsCookie, PolicySetId};

use super::leftovers::ClosedNetns;
use crate::admin::answer::ServingState;
use ambit_datapath::{EnrolledPod, Ztunnel};
use ambit_identity::WorkloadCertificates;
use ambit_model::{Fault, ObjectName, Workload};

/// The longest pause between attempts.
const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// How long after failed attempts a pod is tried again.
const RETRY: Backoff = Backoff::doubling(Duration::from_millis(500), RETRY_LONGEST);

/// How long a pod that an earlier agent left served may wait for its certificate before it is closed:
/// without listeners its mesh traffic is refused, but until then plaintext that policy allowed, for
/// example probes, continues.
const ADOPTION: Duration = Duration::from_secs(10);

/// A pod of this node that its objects opt in.
pub(super) struct LocalPod {
    pub(super) workload: Arc<Workload>,
    pub(super) stage: Stage,
}

/// A pod's stage.
pub(super) enum Stage {
    /// Enrolled, and the agent carries its connections.
    Served(Box<ServedPod>),
    /// Not served. It is closed if it is in the kernel.
    Closed(Box<ClosedPod>),
    /// Istio's ztunnel serves it.
    LeftToIstio(LeftToIstio),
}

/// A pod that Istio's ztunnel serves.
pub(super) struct LeftToIstio {
    /// The ztunnel.
    pub(super) ztunnel: Ztunnel,
    /// When this is checked again.
    pub(super) until: Instant,
}

impl LeftToIstio {
    pub(super) fn new(ztunnel: Ztunnel, now: Instant) -> Self {
        Self {
            ztunnel,
            until: now + RETRY_LONGEST,
        }
    }
}

/// A pod that is served.
pub(super) struct ServedPod {
    pub(super) kernel: EnrolledPod,
    /// Held while the pod is served: renewal stops with the last holder.
    pub(super) _certificates: WorkloadCertificates,
}

/// A pod that is not served.
pub(super) struct ClosedPod {
    /// Its part in the kernel, if there is one.
    pub(super) kernel: Option<EnrolledPod>,
    reason: String,
    since: Instant,
    /// Whether another entry in the kernel closes the network namespace that it names.
    exposure: Exposure,
    /// Attempts in a row that failed.
    pub(super) attempts: u32,
    pub(super) retry: Retry,
}

/// Whether the network namespace that a pod names is closed although the pod itself is not in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exposure {
    /// Nothing closes it.
    Unknown,
    /// It is closed, or serves the pod that it was given to.
    Guarded,
}

/// When a pod that is not served is tried again.
pub(super) enum Retry {
    /// At this moment.
    At(Instant),
    /// As soon as it has its certificate.
    Certified(WorkloadCertificates),
}

impl Retry {
    /// Whether it is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        match self {
            Self::At(moment) => *moment <= now,
            Self::Certified(certificates) => certificates.ready().is_ok(),
        }
    }
}

impl ClosedPod {
    /// A pod that is to be served as soon as possible.
    pub(super) fn due(kernel: Option<EnrolledPod>, now: Instant) -> Self {
        Self {
            kernel,
            reason: "it is being enrolled".to_owned(),
            since: now,
            exposure: Exposure::Unknown,
            attempts: 0,
            retry: Retry::At(now),
        }
    }

    /// A pod that has no certificate yet.
    pub(super) fn uncertified(
        kernel: Option<EnrolledPod>,
        certificates: WorkloadCertificates,
        now: Instant,
    ) -> Self {
        Self {
            kernel,
            reason: "it has no certificate yet".to_owned(),
            since: now,
            exposure: Exposure::Unknown,
            attempts: 0,
            retry: Retry::Certified(certificates),
        }
    }

    /// Why it is not served.
    fn reason(&self) -> String {
        if let Retry::Certified(certificates) = &self.retry
            && let Err(unavailable) = certificates.ready()
        {
            return unavailable.to_string();
        }
        self.reason.clone()
    }

    /// A pod that failed at `now`, for the `attempts`-th time in a row.
    pub(super) fn failed(
        kernel: Option<EnrolledPod>,
        reason: String,
        attempts: u32,
        now: Instant,
    ) -> Self {
        Self {
            kernel,
            reason,
            since: now,
            exposure: Exposure::Unknown,
            attempts,
            retry: Retry::At(now + RETRY.pause(attempts)),
        }
    }

    /// The same pod, with what is known about the network namespace that it names.
    pub(super) fn with_exposure(self, exposure: Exposure) -> Self {
        Self { exposure, ..self }
    }

    /// Whether what an earlier agent left served must be closed by now. A pod that only waits for its
    /// certificate has [`ADOPTION`]; any other is closed immediately.
    pub(super) fn is_to_be_shut(&self, now: Instant) -> bool {
        match &self.retry {
            Retry::At(_) => true,
            Retry::Certified(_) => self.since + ADOPTION <= now,
        }
    }
}

impl LocalPod {
    /// The pod's part in the kernel, if there is one.
    pub(super) fn kernel(&self) -> Option<&EnrolledPod> {
        match &self.stage {
            Stage::Served(served) => Some(&served.kernel),
            Stage::Closed(closed) => closed.kernel.as_ref(),
            Stage::LeftToIstio(_) => None,
        }
    }

    /// Describes the pod for the operator. `kept` are network namespaces that are kept closed.
    pub(super) fn report(&self, kept: &[ClosedNetns]) -> PodReport {
        let (state, reason) = match &self.stage {
            Stage::Served(_) => (ServingState::Served, None),
            Stage::Closed(closed) => (self.closed_state(closed, kept), Some(closed.reason())),
            Stage::LeftToIstio(left) => {
                let pid = left.ztunnel.pid;
                let reason = format!("Istio's ztunnel (process {pid}) listens in it");
                (ServingState::LeftToIstio, Some(reason))
            }
        };
        let kernel = self.kernel();
        let entry = kernel.map(EnrolledPod::entry);
        let ports = entry.map(|entry| entry.listener_ports.into_iter().flatten());
        PodReport {
            name: self.workload.name.clone(),
            state,
            reason,
            netns: kernel.map(EnrolledPod::cookie),
            policy_set: entry.map(|entry| entry.policy_set),
            listener_ports: ports
                .into_iter()
                .flatten()
                .filter(|&port| port != 0)
                .collect(),
        }
    }
}

impl LocalPod {
    fn closed_state(&self, closed: &ClosedPod, kept: &[ClosedNetns]) -> ServingState {
        let name = &self.workload.name;
        let is_kept = || kept.iter().any(|one| one.pod.as_ref() == Some(name));
        match closed.exposure {
            Exposure::Guarded => ServingState::Closed,
            Exposure::Unknown if closed.kernel.is_some() || is_kept() => ServingState::Closed,
            Exposure::Unknown => ServingState::Unprotected,
        }
    }
}

/// What an operator sees of this node.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct NodeReport {
    pub(super) pods: Vec<PodReport>,
    /// Network namespaces that are kept closed, in which no pod is served.
    pub(super) kept: Vec<ClosedNetns>,
    /// Faults of its pods.
    pub(super) faults: Vec<Fault>,
    /// Tables of the kernel that are not up to date.
    pub(super) kernel_faults: Vec<Fault>,
}

/// What an operator sees of a pod of this node.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct PodReport {
    pub(super) name: ObjectName,
    pub(super) state: ServingState,
    /// Why it is closed.
    pub(super) reason: Option<String>,
    pub(super) netns: Option<NetnsCookie>,
    pub(super) policy_set: Option<PolicySetId>,
    pub(super) listener_ports: Vec<u16>,
}
