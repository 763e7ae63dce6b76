//! A denial, or what a policy had noted.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use ambit_model::{ObjectName, WorkloadIdentity};
use ambit_policy::Layer;

/// What an event tells.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// Something was denied.
    Denial,
    /// A policy had something noted (AUDIT, dry runs), whatever became of it.
    Note,
}

/// An event as it happens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct EventRecord {
    /// What it tells.
    pub kind: EventKind,
    /// `inbound`: the pod was called; `outbound`: it called.
    pub direction: &'static str,
    /// Where it was decided.
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
    /// Method and path, where it is about a request.
    pub request: Option<String>,
    /// The word of the denial's reason, or of the note.
    pub reason: &'static str,
    /// The policy and rule that decided.
    pub policy: Option<String>,
}

/// Events that are kept as one: they differ in nothing but the caller's port and their time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RecentEvent {
    /// The latest of them.
    #[serde(flatten)]
    pub event: EventRecord,
    /// How many they are.
    pub count: u64,
    /// Whether they are about several destinations or requests, of which the latest is shown. The
    /// first of the same source and rule are kept apart; this one stands for all others.
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
    /// Whether another was decided by the same rule in the same place, about the same source.
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

    /// Whether one that is alike is about the same, too.
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

    /// Adds one that is alike.
    pub(super) fn add(&mut self, event: EventRecord, now: Timestamp) {
        self.various |= !self.event.is_about_the_same(&event);
        self.event = event;
        self.count += 1;
        self.last = now;
    }
}

/// Milliseconds are exact enough for people and for what correlates logs.
fn rfc3339<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{at:.3}"))
}
