//! A denial, or what a policy had noted.

use std::net::SocketAddr;

use serde::Serialize;

use crate::model::{ObjectName, WorkloadIdentity};
use crate::policy::Layer;

/// What an event tells.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// Something was denied.
    Denial,
    /// A policy had something noted (AUDIT, dry runs), whatever became of it.
    Note,
}

/// An event.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct EventRecord {
    /// What it tells.
    pub kind: EventKind,
    /// `inbound`: the pod was called; `outbound`: it called.
    pub side: &'static str,
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
    /// How often, with few others in between.
    pub count: u64,
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
    /// Whether another differs in nothing but the caller's port.
    pub(super) fn is_repeated_by(&self, next: &Self) -> bool {
        let like_this = Self {
            source: SocketAddr::new(next.source.ip(), self.source.port()),
            count: self.count,
            ..next.clone()
        };
        *self == like_this
    }
}
