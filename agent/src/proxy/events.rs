//! What the proxy decides, as events for the operator.

use std::net::SocketAddr;

use super::ends::Ends;
use super::pod::ServedPod;
use super::subject::{Direction, Path, Subject};
use crate::model::WorkloadIdentity;
use crate::observe::event::{EventKind, EventRecord};
use crate::policy::{Decider, Layer, Note, RequestAttributes};

/// How much of a request's method and path an event keeps: whoever calls may write long ones.
const REQUEST_CHARACTERS: usize = 256;

/// What an event of a pod is about.
#[derive(Clone, Debug)]
pub(crate) struct Matter {
    side: Direction,
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
                Some(Path::OwnPod) => Direction::Inbound,
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
            side: Direction::Inbound,
            source: ends.caller.address,
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
            side: Direction::Inbound,
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

    /// Keeps that it was denied.
    pub(crate) fn denied(self, pod: &ServedPod, reason: &'static str, decider: Option<&Decider>) {
        self.record(pod, EventKind::Denial, reason, decider);
    }

    /// Counts and keeps what a policy had noted of it.
    pub(crate) fn noted(self, pod: &ServedPod, note: &Note) {
        pod.stats.noted(note.as_str());
        self.record(pod, EventKind::Note, note.as_str(), Some(note.decider()));
    }

    fn record(
        self,
        pod: &ServedPod,
        kind: EventKind,
        reason: &'static str,
        decider: Option<&Decider>,
    ) {
        pod.events.record(EventRecord {
            kind,
            side: self.side.as_str(),
            decided_in: Layer::Proxy,
            hook: None,
            pod: Some(pod.workload.name.clone()),
            source: self.source,
            destination: self.destination,
            identity: self.identity,
            request: self.request,
            reason,
            policy: decider.map(Decider::to_string),
            count: 1,
        });
    }
}

fn excerpt(method: &str, path: &str) -> String {
    let mut characters = method.chars().chain([' ']).chain(path.chars());
    let mut text: String = characters.by_ref().take(REQUEST_CHARACTERS).collect();
    if characters.next().is_some() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_kept_whole_unless_it_is_long() {
        assert_eq!(excerpt("GET", "/order"), "GET /order");
        let long = excerpt("GET", &"/ä".repeat(100_000));
        assert_eq!(long.chars().count(), REQUEST_CHARACTERS + 1);
        assert!(long.starts_with("GET /ä/ä") && long.ends_with('…'));
    }
}
