//! What the proxy denies or a policy notes, as an event for the operator.

use std::net::SocketAddr;

use super::{ConnectionContext, ConnectionDirection, Path};
use crate::shard::pod::ServedPod;
use ambit_model::WorkloadIdentity;
use ambit_observe::event::{EventKind, EventRecord};
use ambit_observe::events::InLog;
use ambit_observe::text::cut;
use ambit_policy::{Decider, Layer, Note, RequestAttributes};

/// The most bytes that events and logs keep of each part of a request that its caller chooses.
pub(crate) const CALLERS_BYTES: usize = 256;

/// The connection, request or tunnel that an event is about.
#[derive(Clone, Debug)]
pub(crate) struct EventSubject {
    pub(crate) direction: ConnectionDirection,
    pub(crate) source: SocketAddr,
    pub(crate) identity: Option<WorkloadIdentity>,
    pub(crate) destination: SocketAddr,
    /// Method and path.
    pub(crate) request: Option<String>,
}

/// What an ending is to the operator.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Severity<'a> {
    /// The proxy denied something. It is kept as an event, and events share the log.
    Denial {
        /// The word of the reason.
        reason: &'static str,
        decider: Option<&'a Decider>,
    },
    /// Something failed. Its line counts towards the pod's share of the log.
    Failure,
    /// What was expected. Its line is always written.
    Normal,
}

impl Severity<'_> {
    /// Keeps an event about `subject` if something was denied. Returns whether the ending gets its
    /// line in the log.
    pub(crate) fn report(self, pod: &ServedPod, subject: impl FnOnce() -> EventSubject) -> InLog {
        match self {
            Self::Denial { reason, decider } => {
                subject().record(pod, EventKind::Denial, reason, decider)
            }
            Self::Failure => pod.events.may_log(&pod.workload.name),
            Self::Normal => InLog::Written,
        }
    }
}

impl EventSubject {
    /// A connection. What a pod sends to itself is judged by its policies as inbound.
    pub(crate) fn connection(context: &ConnectionContext) -> Self {
        Self {
            direction: match context.path {
                Some(Path::OwnPod) => ConnectionDirection::Inbound,
                Some(Path::Tunnel | Path::Handoff | Path::Plaintext) | None => context.direction,
            },
            source: context.source.address,
            identity: context.source.identity.clone(),
            destination: context.destination.address,
            request: None,
        }
    }

    /// A request on a connection.
    pub(crate) fn request(context: &ConnectionContext, request: &RequestAttributes) -> Self {
        Self {
            request: Some(excerpt(&request.method, &request.path)),
            ..Self::connection(context)
        }
    }

    /// Counts and keeps what a policy notes.
    pub(crate) fn noted(self, pod: &ServedPod, note: &Note) {
        pod.stats.noted(note.as_str());
        // Whoever wrote the policy wants every line.
        let _always = self.record(pod, EventKind::Note, note.as_str(), Some(note.decider()));
    }

    fn record(
        self,
        pod: &ServedPod,
        kind: EventKind,
        reason: &'static str,
        decider: Option<&Decider>,
    ) -> InLog {
        pod.events.record(EventRecord {
            kind,
            direction: self.direction.as_str(),
            decided_in: Layer::Proxy,
            hook: None,
            pod: Some(pod.workload.name.clone()),
            source: self.source,
            destination: self.destination,
            identity: self.identity,
            request: self.request,
            reason,
            policy: decider.map(Decider::to_string),
        })
    }
}

fn excerpt(method: &str, path: &str) -> String {
    format!(
        "{} {}",
        cut(method, CALLERS_BYTES),
        cut(path, CALLERS_BYTES)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_kept_whole_unless_it_is_long() {
        assert_eq!(excerpt("GET", "/order"), "GET /order");
        let long = excerpt("GET", &"/ä".repeat(100_000));
        assert!(long.len() < CALLERS_BYTES + 30, "{long}");
        assert!(
            long.starts_with("GET /ä/ä") && long.ends_with("…(+299744 bytes)"),
            "{long}"
        );
    }
}
