//! The pods of this node, and how far each has come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_common::{NetnsCookie, PolicySetId};

use crate::datapath::EnrolledPod;
use crate::identity::WorkloadCertificates;
use crate::model::{Fault, ObjectName, Workload};

/// How long after a failed attempt a pod is tried again, at first; doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(500);

/// The longest pause between attempts.
const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// Whether pods that the model does not know may still be in the kernel: those of an earlier agent,
/// and those that could not be removed.
#[derive(PartialEq, Eq)]
pub(super) enum Leftovers {
    /// They may.
    Kept,
    /// They have been removed.
    Removed,
}

/// A pod of this node that its objects opt in.
pub(super) struct LocalPod {
    pub(super) workload: Arc<Workload>,
    pub(super) stage: Stage,
}

/// How far a pod has come.
pub(super) enum Stage {
    /// Served.
    Open(Box<OpenPod>),
    /// Not served: closed in the kernel where it came that far.
    Closed(Box<ClosedPod>),
}

/// A pod that is served.
pub(super) struct OpenPod {
    pub(super) kernel: EnrolledPod,
    /// Held for as long as the pod is served: renewal stops with the last holder.
    pub(super) _certificates: WorkloadCertificates,
}

/// A pod that is not served.
pub(super) struct ClosedPod {
    /// What the kernel has of it.
    pub(super) kernel: Option<EnrolledPod>,
    reason: String,
    /// How many have failed in a row.
    pub(super) attempts: u32,
    pub(super) retry: Retry,
}

/// When a pod that is not served is tried again.
pub(super) enum Retry {
    /// At this moment.
    At(Instant),
    /// As soon as its certificate is there.
    Certified(WorkloadCertificates),
}

impl Retry {
    /// Whether it is time.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        match self {
            Self::At(moment) => *moment <= now,
            Self::Certified(certificates) => certificates.ready().is_ok(),
        }
    }
}

impl ClosedPod {
    /// A pod that is to be served at once.
    pub(super) fn due(kernel: Option<EnrolledPod>, now: Instant) -> Self {
        Self {
            kernel,
            reason: "it is being enrolled".to_owned(),
            attempts: 0,
            retry: Retry::At(now),
        }
    }

    /// A pod that has no certificate yet.
    pub(super) fn uncertified(
        kernel: Option<EnrolledPod>,
        certificates: WorkloadCertificates,
    ) -> Self {
        Self {
            kernel,
            reason: "it has no certificate yet".to_owned(),
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
        let doublings = attempts.saturating_sub(1).min(8);
        let pause = (RETRY_FIRST * 2_u32.pow(doublings)).min(RETRY_LONGEST);
        Self {
            kernel,
            reason,
            attempts,
            retry: Retry::At(now + pause),
        }
    }
}

impl LocalPod {
    /// What the kernel has of the pod.
    pub(super) fn kernel(&self) -> Option<&EnrolledPod> {
        match &self.stage {
            Stage::Open(open) => Some(&open.kernel),
            Stage::Closed(closed) => closed.kernel.as_ref(),
        }
    }

    /// Describes the pod for the operator.
    pub(super) fn report(&self) -> PodReport {
        let (state, reason) = match &self.stage {
            Stage::Open(_) => (PodState::Enrolled, None),
            Stage::Closed(closed) => (PodState::Closed, Some(closed.reason())),
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

/// What an operator sees of this node.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct NodeReport {
    pub(super) pods: Vec<PodReport>,
    /// What the kernel could not be told.
    pub(super) faults: Vec<Fault>,
}

/// What an operator sees of a pod of this node.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct PodReport {
    pub(super) name: ObjectName,
    pub(super) state: PodState,
    /// Why it is closed.
    pub(super) reason: Option<String>,
    pub(super) netns: Option<NetnsCookie>,
    pub(super) policy_set: Option<PolicySetId>,
    pub(super) listener_ports: Vec<u16>,
}

/// Whether a pod is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PodState {
    Enrolled,
    Closed,
}
