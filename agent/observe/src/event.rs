//! Events: denials, and what policies noted.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use ambit_model::{ObjectName, WorkloadIdentity};
use ambit_policy::Layer;

/// The kind of an event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A connection or request was denied.
    Denial,
    /// A policy noted a connection or request (AUDIT, dry runs), whether it was allowed or not.
    Note,
}

/// An event as it happens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct EventRecord {
    /// Denial or note.
    pub kind: EventKind,
    /// `inbound`: the pod was called; `outbound`: it called.
    pub direction: &'static str,
    /// Whether the kernel or the proxy decided.
    pub decided_in: Layer,
    /// The kernel's hook that decided.
    pub hook: Option<&'static str>,
    /// The pod that was called, or that called.
    pub pod: Option<ObjectName>,
    /// Who called; unspecified for a pod's own connect.
    pub source: SocketAddr,
    /// What was called.
    pub destination: SocketAddr,
    /// The caller's verified identity.
    pub identity: Option<WorkloadIdentity>,
    /// Method and path, if it is about a request.
    pub request: Option<String>,
    /// The reason of the denial, or the note, as a word.
    pub reason: &'static str,
    /// The policy and rule that decided.
    pub policy: Option<String>,
}

/// Events that are kept as one: they differ only in the caller's port and in time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RecentEvent {
    /// The latest of them.
    #[serde(flatten)]
    pub event: EventRecord,
    /// How many there were.
    pub count: u64,
    /// Whether they are about several destinations or requests, of which the latest is shown. The first
    /// few of a source and rule are kept separately; this one stands for all others.
    pub various: bool,
    /// When the first one happened.
    #[serde(serialize_with = "rfc3339")]
    pub first: Timestamp,
    /// When the last one happened.
    #[serde(serialize_with = "rfc3339")]
    pub last: Timestamp,
}

impl EventKind {
    /// The word that logs and metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denial => "denial",
            Self::Note => "note",
        }
    }
}

impl EventRecord {
    /// Whether both were decided by the same rule at the same hook, about the same source.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        self.reason == other.reason
            && self.kind == other.kind
            && self.direction == other.direction
            && self.decided_in == other.decided_in
            && self.hook == other.hook
            && self.source.ip() == other.source.ip()
            && self.identity == other.identity
            && self.policy == other.policy
    }

    /// Whether two similar events have the same destination and request.
    pub(super) fn is_about_the_same(&self, other: &Self) -> bool {
        self.destination == other.destination && self.request == other.request
    }
}

impl RecentEvent {
    pub(super) fn new(event: EventRecord, now: Timestamp) -> Self {
        Self {
            event,
            count: 1,
            various: false,
            first: now,
            last: now,
        }
    }

    /// Adds a similar event.
    pub(super) fn add(&mut self, event: EventRecord, now: Timestamp) {
        self.various |= !self.event.is_about_the_same(&event);
        self.event = event;
        self.count += 1;
        self.last = now;
    }
}

/// Milliseconds are precise enough to correlate logs.
fn rfc3339<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{at:.3}"))
}
