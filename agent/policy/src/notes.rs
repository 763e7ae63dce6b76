//! What policies note about a connection or a request without deciding: AUDIT, and dry runs of ALLOW
//! and DENY (annotation `istio.io/dry-run`).

use std::fmt;

use super::authorization::{Action, Enforcement, Knowledge};
use super::decision::{ConnectionAttributes, Decider};
use super::evaluate::Ternary;
use super::request::RequestAttributes;
use super::workload_policies::{Attached, WorkloadPolicies};

/// Something that a policy notes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    /// An AUDIT rule matches.
    Audited(Decider),
    /// A DENY rule on dry run would have refused it.
    WouldDeny(Decider),
    /// An ALLOW rule on dry run would have allowed it.
    WouldAllow(Decider),
    /// No rule of the ALLOW policies on dry run would have allowed it. This is the first of them.
    WouldNotAllow(Decider),
}

impl Note {
    /// The word that logs and metrics use.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Audited(_) => "audited",
            Self::WouldDeny(_) => "dry-run-denied",
            Self::WouldAllow(_) => "dry-run-allowed",
            Self::WouldNotAllow(_) => "dry-run-not-allowed",
        }
    }

    /// The policy or rule that it is about.
    pub const fn decider(&self) -> &Decider {
        match self {
            Self::Audited(decider)
            | Self::WouldDeny(decider)
            | Self::WouldAllow(decider)
            | Self::WouldNotAllow(decider) => decider,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.as_str(), self.decider())
    }
}

impl WorkloadPolicies {
    /// What policies note about a request.
    pub fn notes_on_request(
        &self,
        connection: &ConnectionAttributes,
        request: &RequestAttributes,
    ) -> Vec<Note> {
        self.notes(connection, Knowledge::Request(request))
    }

    /// What policies note about a connection that is not HTTP.
    pub fn notes_on_opaque(&self, connection: &ConnectionAttributes) -> Vec<Note> {
        self.notes(connection, Knowledge::Opaque)
    }

    /// Whether there may be something to note about a connection.
    pub(super) fn is_worth_noting(
        &self,
        connection: &ConnectionAttributes,
        knowledge: Knowledge<'_>,
    ) -> bool {
        self.noted(connection.destination.port())
            .any(|attached| match attached.policy.action {
                Action::Allow => true,
                Action::Deny | Action::Audit | Action::Custom => {
                    attached.matches(connection, knowledge) != Ternary::False
                }
            })
    }

    /// The policies that note and apply to a port.
    fn noted(&self, port: u16) -> impl Iterator<Item = &Attached> {
        self.policies
            .iter()
            .filter(move |attached| attached.is_noted() && attached.ports.include(port))
    }

    pub(super) fn notes(
        &self,
        connection: &ConnectionAttributes,
        knowledge: Knowledge<'_>,
    ) -> Vec<Note> {
        let port = connection.destination.port();
        let matching = |action: Action| {
            self.noted(port)
                .filter(move |attached| attached.policy.action == action)
                .filter_map(|attached| {
                    let rule = attached.matching_rule(connection, knowledge)?;
                    Some(attached.decider(Some(rule)))
                })
        };
        let first_dry_run = self
            .noted(port)
            .find(|attached| attached.policy.action == Action::Allow);
        let allow = first_dry_run.map(|first| match matching(Action::Allow).next() {
            Some(decider) => Note::WouldAllow(decider),
            None => Note::WouldNotAllow(first.decider(None)),
        });
        matching(Action::Audit)
            .map(Note::Audited)
            .chain(matching(Action::Deny).next().map(Note::WouldDeny))
            .chain(allow)
            .collect()
    }
}

impl Attached {
    /// Whether it notes and decides nothing.
    pub(super) fn is_noted(&self) -> bool {
        self.policy.action == Action::Audit || self.policy.enforcement == Enforcement::DryRun
    }
}
