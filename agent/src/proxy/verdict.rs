//! Whether a connection may begin, and go on: pure decisions from one view of the mesh.

use std::sync::Arc;

use ambit_common::Reason;
use serde::Serialize;

use super::subject::Path;
use crate::model::{Enrolment, ObjectName, Snapshot, Workload};
use crate::policy::{Attributes, Decision, Denial, MeshView, Permit, WorkloadPolicies};

/// What has to hold for a connection to go on.
#[derive(Clone, Debug)]
pub(crate) enum Basis {
    /// The policies of the pod that it is delivered to allow it.
    Policy(Attributes),
    /// The endpoint that it was opened to is still what it was, and still to be reached this way.
    Endpoint {
        /// The endpoint.
        workload: Arc<Workload>,
        /// How it is reached.
        path: Path,
    },
}

/// Why a live connection was ended.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub(crate) enum Termination {
    /// Policy does not allow it any more.
    #[error("terminated by policy change: {0}")]
    PolicyChanged(Denial),
    /// Its endpoint is gone, or another pod has taken its name or identity.
    #[error("terminated: the pod {0} that it was opened to is gone")]
    EndpointGone(ObjectName),
    /// It goes in plaintext to a pod that has joined the mesh.
    #[error("terminated: the pod {0} has been opted in, and this connection is plaintext")]
    EndpointOptedIn(ObjectName),
    /// The pod is not served any more.
    #[error("terminated: {0}")]
    PodRemoved(PodRemoval),
}

/// Why the proxy stops serving a pod.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum PodRemoval {
    /// The pod was deleted.
    #[error("the pod was deleted")]
    Deleted,
    /// Its objects do not opt it in any more.
    #[error("the pod was opted out of the mesh")]
    OptedOut,
    /// Another pod, or another network namespace, has taken its place.
    #[error("the pod was replaced by another of the same name")]
    Replaced,
    /// Its enrolment failed after its listeners were made.
    #[error("the pod's enrolment failed")]
    EnrolmentFailed,
    /// The agent stops.
    #[error("the agent stops")]
    AgentStops,
}

/// Evaluates a connection to a pod with the policies of a view.
///
/// # Errors
/// The denial; also where the view does not know the pod, since then it has no policies to speak
/// for it.
pub(crate) fn evaluate(
    view: &MeshView,
    pod: &Workload,
    connection: &Attributes,
) -> Result<Permit, Denial> {
    permit(policies(view, pod).as_deref(), connection)
}

/// The policies that a view has for a pod; `None` where the view does not know that pod.
pub(crate) fn policies(view: &MeshView, pod: &Workload) -> Option<Arc<WorkloadPolicies>> {
    let known = same_workload(&view.snapshot, pod)?;
    Some(view.policies.for_workload(known))
}

fn permit(
    policies: Option<&WorkloadPolicies>,
    connection: &Attributes,
) -> Result<Permit, Denial> {
    let Some(policies) = policies else {
        return Err(Denial { reason: Reason::PodClosed, decider: None });
    };
    match policies.evaluate(connection) {
        Decision::Allow(permit) => Ok(permit),
        Decision::Deny(denial) => Err(denial),
    }
}

/// Whether a connection may go on: `policies` are those of the pod that it is served for.
///
/// # Errors
/// Why it may not.
pub(crate) fn still_holds(
    snapshot: &Snapshot,
    policies: Option<&WorkloadPolicies>,
    basis: &Basis,
) -> Result<(), Termination> {
    match basis {
        Basis::Policy(connection) => permit(policies, connection)
            .map(|_permit| ())
            .map_err(Termination::PolicyChanged),
        Basis::Endpoint { workload, path } => endpoint_holds(snapshot, workload, *path),
    }
}

fn endpoint_holds(
    snapshot: &Snapshot,
    endpoint: &Workload,
    path: Path,
) -> Result<(), Termination> {
    let gone = || Termination::EndpointGone(endpoint.name.clone());
    let now = same_workload(snapshot, endpoint).ok_or_else(gone)?;
    if now.identity != endpoint.identity {
        return Err(gone());
    }
    match (path, &now.enrolment) {
        (Path::Plaintext, Enrolment::OptedIn | Enrolment::Never(_)) => {
            Err(Termination::EndpointOptedIn(endpoint.name.clone()))
        }
        (Path::Plaintext, Enrolment::NotOptedIn) | (Path::Tunnel | Path::OwnPod, _) => Ok(()),
    }
}

/// The workload as a snapshot has it; `None` where it is gone or another of its name is there.
fn same_workload<'a>(snapshot: &'a Snapshot, workload: &Workload) -> Option<&'a Arc<Workload>> {
    snapshot.workload(&workload.name).filter(|now| now.uid == workload.uid)
}

/// Names what decided a denial by the kernel, whose tables are compiled from the same policies:
/// the evaluator's denial where it gives the same reason, else the kernel's bare reason.
pub(crate) fn explain(
    view: &MeshView,
    pod: &Workload,
    connection: &Attributes,
    reason: Reason,
) -> Denial {
    match evaluate(view, pod, connection) {
        Err(denial) if denial.reason == reason => denial,
        Ok(_) | Err(_) => Denial { reason, decider: None },
    }
}

/// Whether a reason of the kernel is the word of a policy, and not a fault or a closed pod.
pub(crate) const fn is_policy(reason: Reason) -> bool {
    match reason {
        Reason::DeniedByPolicy | Reason::NoAllowMatched | Reason::PolicyNotEnforceable => true,
        Reason::TablesIncomplete
        | Reason::PodClosed
        | Reason::NoListener
        | Reason::ForeignAddress
        | Reason::ListenerPort
        | Reason::NoRecord
        | Reason::DeviceBound
        | Reason::TicketMismatch
        | Reason::NoMemory
        | Reason::Canary => false,
    }
}
