//! What the proxy decides, as events for the operator.

use std::net::SocketAddr;

use crate::connection::{ConnectionDirection, Path, Subject};
use crate::ends::Ends;
use crate::shard::pod::ServedPod;
use ambit_model::WorkloadIdentity;
use ambit_observe::event::{EventKind, EventRecord};
use ambit_observe::events::InLog;
use ambit_observe::text::cut;
use ambit_policy::{Decider, Layer, Note, RequestAttributes};

/// The most that events and logs have of each part of a request that its caller chooses, in bytes.
pub(crate) const CALLERS_BYTES: usize = 256;

/// What an event of a pod is about.
#[derive(Clone, Debug)]
pub(crate) struct Matter {
    side: ConnectionDirection,
    source: SocketAddr,
    identity: Option<WorkloadIdentity>,
    destination: SocketAddr,
    /// Method and path.
    request: Option<String>,
}

impl Matter {
    /// A connection. What a pod sends to itself, its policies judge as what comes from elsewhere.
    pub(crate) fn of(subject: &Subject) -> Self {
        Self {
            side: match subject.path {
                Some(Path::OwnPod) => ConnectionDirection::Inbound,
                Some(Path::Tunnel | Path::Plaintext) | None => subject.direction,
            },
            source: subject.source.address,
            identity: subject.source.identity.clone(),
            destination: subject.destination.address,
            request: None,
        }
    }

    /// A connection to the pod's application.
    pub(crate) fn between(ends: Ends<'_>) -> Self {
        Self {
            side: ConnectionDirection::Inbound,
            source: ends.caller.address.0,
            identity: ends.caller.identity.clone(),
            destination: ends.to,
            request: None,
        }
    }

    /// A tunnel to the pod, or what was asked of it.
    pub(crate) fn tunnel(
        source: SocketAddr,
        identity: Option<WorkloadIdentity>,
        reached: SocketAddr,
    ) -> Self {
        Self {
            side: ConnectionDirection::Inbound,
            source,
            identity,
            destination: reached,
            request: None,
        }
    }

    /// A request on it.
    pub(crate) fn request(self, request: &RequestAttributes) -> Self {
        Self {
            request: Some(excerpt(&request.method, &request.path)),
            ..self
        }
    }

    /// Keeps that it was denied. Tells whether it is to have its line in the log.
    pub(crate) fn denied(
        self,
        pod: &ServedPod,
        reason: &'static str,
        decider: Option<&Decider>,
    ) -> InLog {
        self.record(pod, EventKind::Denial, reason, decider)
    }

    /// Counts and keeps what a policy had noted of it.
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
            direction: self.side.as_str(),
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
