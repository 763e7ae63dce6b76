//! Decides whether a connection may begin, and whether it may go on: pure decisions from one view of the
//! mesh.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use ambit_common::{MeshClass, Reason};
use serde::Serialize;

use crate::connection::Path;
use ambit_model::{Membership, ObjectName, Snapshot, Workload};
use ambit_policy::{
    Approvals, ConnectionAttributes, ConnectionVerdict, Decider, Denial, MeshView, Permit,
    RequestAttributes, RequestPermit, WorkloadPolicies,
};

/// What has to hold for a connection or request to go on.
#[derive(Clone, Debug)]
pub(crate) enum Requirement {
    /// The pod's policies allow the connection to its application.
    Policy {
        /// The attributes that they judge.
        connection: ConnectionAttributes,
        /// What they know about its bytes.
        content: Content,
    },
    /// The pod's policies allow this request.
    Request {
        /// The connection that it came on.
        connection: ConnectionAttributes,
        /// The request's own attributes.
        request: Rc<RequestAttributes>,
        /// The authorizers that were consulted and did not refuse it.
        approvals: Approvals,
    },
    /// The endpoint of the connection is still the same pod, and is still reached by this path.
    Endpoint {
        /// The endpoint.
        workload: Arc<Workload>,
        /// The path by which it was reached.
        path: Path,
    },
    /// The connection goes in plaintext to this address, which is still outside the mesh.
    Outside(SocketAddr),
}

/// What policy knows about a connection's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// Nothing: none has passed.
    Nothing,
    /// Policy allows the connection whatever it carries.
    Anything,
    /// They are not HTTP, and these authorizers did not refuse them.
    Opaque(Approvals),
    /// They are requests, each of which has a requirement of its own.
    Requests,
}

/// Why the proxy ended a live connection. A connection that never carried a byte ends with a
/// [`crate::connection::refusal::Refusal`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum Termination {
    /// Policy no longer allows it.
    #[error("terminated by policy change: {0}")]
    PolicyChanged(Denial),
    /// It was allowed whatever it carries, and policy now depends on its requests.
    #[error("terminated by policy change: its requests have to be judged from now on")]
    RequestsMatter,
    /// Its endpoint is gone, or another pod has taken its name or identity.
    #[error("terminated: the pod {0} that it was opened to is gone")]
    EndpointGone(ObjectName),
    /// It goes in plaintext to a pod that has joined the mesh.
    #[error("terminated: the pod {0} has been opted in, and this connection is plaintext")]
    EndpointOptedIn(ObjectName),
    /// It goes in plaintext to an address that has joined the mesh.
    #[error("terminated: {0} has joined the mesh, and this connection is plaintext")]
    AddressJoined(SocketAddr),
    /// The pod is no longer served.
    #[error("terminated: {0}")]
    PodRemoved(PodRemoval),
    /// The source's half of a connection that was handed from pod to pod has ended, which is reported there.
    #[error("the source's half has ended: {0}")]
    AtSource(String),
    /// The destination's half has ended, which is reported there.
    #[error("the destination's half has ended: {0}")]
    AtDestination(String),
    /// It was idle, and another connection took its place.
    #[error(
        "terminated: it was idle, the pod's places were used up, and its source held most of them"
    )]
    Displaced,
}

/// Why the proxy stops serving a pod.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum PodRemoval {
    /// The pod was deleted.
    #[error("the pod was deleted")]
    Deleted,
    /// Its objects no longer opt it in.
    #[error("the pod was opted out of the mesh")]
    OptedOut,
    /// Another pod, or another network namespace, has taken its place.
    #[error("the pod was replaced by another of the same name")]
    Replaced,
    /// It is opted in, and cannot be served any more.
    #[error("the pod is no longer served: its objects changed")]
    NotServed,
    /// Its enrolment failed after its listeners were created.
    #[error("the pod's enrolment failed")]
    EnrolmentFailed,
    /// The agent stops.
    #[error("the agent stops")]
    AgentStops,
}

/// Judges one pod's connections by one view of the mesh.
#[derive(Debug)]
pub(crate) struct Judge<'a> {
    view: &'a MeshView,
    pod: &'a Workload,
    /// `None` inside: the view does not know the pod, so its connections are denied.
    policies: OnceCell<Option<Arc<WorkloadPolicies>>>,
}

impl Termination {
    /// The word that logs and metrics use.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::PolicyChanged(_) | Self::RequestsMatter => "policy-changed",
            Self::EndpointGone(_) => "endpoint-gone",
            Self::EndpointOptedIn(_) | Self::AddressJoined(_) => "endpoint-opted-in",
            Self::PodRemoved(_) => "pod-removed",
            Self::AtSource(_) => "ended-at-source",
            Self::AtDestination(_) => "ended-at-destination",
            Self::Displaced => "displaced",
        }
    }

    /// Whether policy ended it.
    pub(crate) const fn is_denial(&self) -> bool {
        match self {
            Self::PolicyChanged(_) | Self::RequestsMatter => true,
            Self::EndpointGone(_)
            | Self::EndpointOptedIn(_)
            | Self::AddressJoined(_)
            | Self::PodRemoved(_)
            | Self::AtSource(_)
            | Self::AtDestination(_)
            | Self::Displaced => false,
        }
    }

    /// The rule that ended it, if one did.
    pub(crate) const fn decider(&self) -> Option<&Decider> {
        match self {
            Self::PolicyChanged(denial) => denial.decider.as_ref(),
            Self::RequestsMatter
            | Self::EndpointGone(_)
            | Self::EndpointOptedIn(_)
            | Self::AddressJoined(_)
            | Self::PodRemoved(_)
            | Self::AtSource(_)
            | Self::AtDestination(_)
            | Self::Displaced => None,
        }
    }
}

impl<'a> Judge<'a> {
    pub(crate) fn new(view: &'a MeshView, pod: &'a Workload) -> Self {
        Self {
            view,
            pod,
            policies: OnceCell::new(),
        }
    }

    /// Returns the pod's policies.
    ///
    /// # Errors
    /// A denial if the view does not know the pod.
    pub(crate) fn policies(&self) -> Result<&WorkloadPolicies, Denial> {
        let policies = self.policies.get_or_init(|| {
            let known = same_workload(&self.view.snapshot, self.pod)?;
            Some(self.view.policies.for_workload(known))
        });
        policies.as_deref().ok_or(Denial {
            reason: Reason::PodClosed,
            decider: None,
        })
    }

    /// Judges a connection to the pod by what is known before it carries a byte.
    pub(crate) fn connection(&self, connection: &ConnectionAttributes) -> ConnectionVerdict {
        match self.policies() {
            Ok(policies) => policies.judge_connection(connection),
            Err(denial) => ConnectionVerdict::Deny(denial),
        }
    }

    /// Judges a connection to the pod that is not HTTP.
    ///
    /// # Errors
    /// The denial.
    pub(crate) fn opaque(
        &self,
        connection: &ConnectionAttributes,
        approvals: &Approvals,
    ) -> Result<Permit, Denial> {
        self.policies()?.judge_opaque(connection, approvals)
    }

    /// Judges a request to the pod.
    ///
    /// # Errors
    /// The denial.
    pub(crate) fn request(
        &self,
        connection: &ConnectionAttributes,
        request: &RequestAttributes,
        approvals: &Approvals,
    ) -> Result<RequestPermit, Denial> {
        let policies = self.policies()?;
        policies.judge_request(connection, request, approvals)
    }

    /// Adds the decider to a denial by the kernel, whose tables are compiled from the same policies:
    /// returns the evaluator's denial if it has the same reason, else the kernel's bare reason.
    pub(crate) fn explain(&self, connection: &ConnectionAttributes, reason: Reason) -> Denial {
        match self.connection(connection) {
            ConnectionVerdict::Deny(denial) if denial.reason == reason => denial,
            ConnectionVerdict::Deny(_) | ConnectionVerdict::Allow(_) | ConnectionVerdict::Ask => {
                Denial {
                    reason,
                    decider: None,
                }
            }
        }
    }

    /// Checks that a connection may go on.
    ///
    /// # Errors
    /// Why it has to end.
    pub(crate) fn still_holds(&self, requirement: &Requirement) -> Result<(), Termination> {
        match requirement {
            Requirement::Policy {
                connection,
                content,
            } => self.content_holds(connection, content),
            Requirement::Request {
                connection,
                request,
                approvals,
            } => self
                .request(connection, request, approvals)
                .map(|_permit| ())
                .map_err(Termination::PolicyChanged),
            Requirement::Endpoint { workload, path } => self.endpoint_holds(workload, *path),
            Requirement::Outside(address) => self.outside_holds(*address),
        }
    }

    fn content_holds(
        &self,
        connection: &ConnectionAttributes,
        content: &Content,
    ) -> Result<(), Termination> {
        let opaque = |approvals: &Approvals| {
            self.opaque(connection, approvals)
                .map(|_permit| ())
                .map_err(Termination::PolicyChanged)
        };
        match (content, self.connection(connection)) {
            (_, ConnectionVerdict::Deny(denial)) => Err(Termination::PolicyChanged(denial)),
            (_, ConnectionVerdict::Allow(_)) => Ok(()),
            (Content::Nothing | Content::Requests, ConnectionVerdict::Ask) => Ok(()),
            (Content::Opaque(approvals), ConnectionVerdict::Ask) => opaque(approvals),
            (Content::Anything, ConnectionVerdict::Ask) => {
                let port = connection.destination.port();
                let carries_http = self.policies().is_ok_and(|one| one.carries_http(port));
                if carries_http {
                    return Err(Termination::RequestsMatter);
                }
                opaque(&Approvals::default())
            }
        }
    }

    fn endpoint_holds(&self, endpoint: &Workload, path: Path) -> Result<(), Termination> {
        let now = same_workload(&self.view.snapshot, endpoint)
            .filter(|now| now.identity == endpoint.identity)
            .ok_or_else(|| Termination::EndpointGone(endpoint.name.clone()))?;
        match (path, &now.membership) {
            (Path::Plaintext, Membership::OptedIn | Membership::Never(_)) => {
                Err(Termination::EndpointOptedIn(endpoint.name.clone()))
            }
            (Path::Plaintext, Membership::NotOptedIn)
            | (Path::Tunnel | Path::Handoff | Path::OwnPod, _) => Ok(()),
        }
    }

    fn outside_holds(&self, address: SocketAddr) -> Result<(), Termination> {
        match self.view.snapshot.mesh_class(address.ip()) {
            Some(MeshClass::Proxy) => Err(Termination::AddressJoined(address)),
            Some(MeshClass::NotOptedIn | MeshClass::Outside) | None => Ok(()),
        }
    }
}

/// Returns the workload as a snapshot has it. `None` if it is gone or if another has its name.
fn same_workload<'a>(snapshot: &'a Snapshot, workload: &Workload) -> Option<&'a Arc<Workload>> {
    snapshot
        .workload(&workload.name)
        .filter(|now| now.uid == workload.uid)
}

/// Whether the kernel denied because of a policy, and not because of a fault or a closed pod.
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
        | Reason::SocketNotSet
        | Reason::Canary => false,
    }
}

#[cfg(test)]
mod tests;
