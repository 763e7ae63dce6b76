//! What policies want noted of a connection or a request, without a say in its verdict: AUDIT, and
//! dry runs of ALLOW and DENY (annotation `istio.io/dry-run`).

use std::fmt;

use super::authorization::{Action, Enforcement, Knowledge};
use super::decision::{ConnectionAttributes, Decider};
use super::evaluate::Ternary;
use super::request::RequestAttributes;
use super::workload_policies::{Attached, WorkloadPolicies};

/// Something to be noted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    /// An AUDIT rule matches.
    Audited(Decider),
    /// A DENY rule on trial would have refused it.
    WouldDeny(Decider),
    /// An ALLOW rule on trial would have allowed it.
    WouldAllow(Decider),
    /// ALLOW policies are on trial, this one first, and none of their rules would have allowed it.
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

    /// The rule that it is about.
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
    /// What is to be noted of a request.
    pub fn notes_on_request(
        &self,
        connection: &ConnectionAttributes,
        request: &RequestAttributes,
    ) -> Vec<Note> {
        self.notes(connection, Knowledge::Request(request))
    }

    /// What is to be noted of a connection that is not HTTP.
    pub fn notes_on_opaque(&self, connection: &ConnectionAttributes) -> Vec<Note> {
        self.notes(connection, Knowledge::Opaque)
    }

    /// Whether there may be something to note.
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

    /// The policies that have something noted of what a port takes.
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
        let on_trial = self
            .noted(port)
            .find(|attached| attached.policy.action == Action::Allow);
        let allow = on_trial.map(|first| match matching(Action::Allow).next() {
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
    /// Whether it has something noted, and decides nothing.
    pub(super) fn is_noted(&self) -> bool {
        self.policy.action == Action::Audit || self.policy.enforcement == Enforcement::DryRun
    }
}
