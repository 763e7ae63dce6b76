//! The kernel's recent denials, logged and kept for the operator.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::model::{ObjectName, WorkloadIdentity};

/// How many are kept.
const KEPT: usize = 1000;

/// A denial, with names for its numbers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DenialRecord {
    /// The hook that decided.
    pub hook: &'static str,
    /// The pod that was called, or that called.
    pub pod: Option<ObjectName>,
    /// Who called; unspecified for a pod's own connect.
    pub source: SocketAddr,
    /// What was called.
    pub destination: SocketAddr,
    /// The caller's verified identity.
    pub identity: Option<WorkloadIdentity>,
    /// The reason's word.
    pub reason: &'static str,
    /// The policy and rule that decided.
    pub policy: Option<String>,
    /// How often in a row.
    pub count: u64,
}

/// Keeps the most recent denials; repeated ones are folded into one.
#[derive(Debug, Default)]
pub struct RecentDenials(Mutex<VecDeque<DenialRecord>>);

impl RecentDenials {
    /// Logs and keeps a denial.
    pub fn record(&self, denial: DenialRecord) {
        tracing::warn!(
            target: "ambit::denied",
            hook = denial.hook,
            pod = denial.pod.as_ref().map(tracing::field::display),
            source = %denial.source,
            destination = %denial.destination,
            identity = denial.identity.as_ref().map(tracing::field::display),
            reason = denial.reason,
            policy = denial.policy.as_deref(),
            "connection denied"
        );
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = kept.back_mut()
            && is_repeated(last, &denial)
        {
            last.count += denial.count;
            return;
        }
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(denial);
    }

    /// The kept denials, oldest first.
    pub fn list(&self) -> Vec<DenialRecord> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }
}

/// Whether only the caller's port differs.
fn is_repeated(last: &DenialRecord, next: &DenialRecord) -> bool {
    (
        last.hook,
        &last.pod,
        last.source.ip(),
        last.destination,
        &last.identity,
        last.reason,
    ) == (
        next.hook,
        &next.pod,
        next.source.ip(),
        next.destination,
        &next.identity,
        next.reason,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(source: &str, reason: &'static str) -> DenialRecord {
        DenialRecord {
            hook: "inbound",
            pod: None,
            source: source.parse().unwrap(),
            destination: "10.0.0.2:80".parse().unwrap(),
            identity: None,
            reason,
            policy: None,
            count: 1,
        }
    }

    #[test]
    fn repeats_are_folded_and_the_oldest_go() {
        let recent = RecentDenials::default();
        recent.record(denial("10.0.0.1:1", "a"));
        recent.record(denial("10.0.0.1:2", "a"));
        recent.record(denial("10.0.0.1:3", "b"));
        let counts: Vec<_> = recent
            .list()
            .iter()
            .map(|kept| (kept.reason, kept.count))
            .collect();
        assert_eq!(counts, [("a", 2), ("b", 1)]);
        for n in 0..=KEPT {
            recent.record(denial(&format!("10.1.{}.{}:1", n / 250, n % 250), "c"));
        }
        assert_eq!(recent.list().len(), KEPT);
    }
}
