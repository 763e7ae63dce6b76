//! Recent denials and notes, kept for the operator. They are kept for each pod separately, so that
//! events at one pod do not displace those of others.

mod lines;
mod pod;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::event::{EventKind, EventRecord, RecentEvent};
use super::tally::{RuleTally, Tallies};
use ambit_model::ObjectName;
use lines::LineShares;
pub use lines::{InLog, LeftOut};
use pod::{Novelty, PodEvents};

/// The most pods for which events are kept; a node has fewer.
const PODS: usize = 1024;

/// The most groups of similar events that are kept, for all pods together.
const GROUPS: usize = 8192;

/// Keeps the events of each pod, folded by source and by the rule that decided, and says which events
/// get a line in the log.
#[derive(Debug, Default)]
pub struct RecentEvents(Mutex<EventStore>);

#[derive(Debug, Default)]
struct EventStore {
    /// `None` for network namespaces that do not belong to a known pod.
    pods: BTreeMap<Option<ObjectName>, OfPod>,
    groups: usize,
    tallies: Tallies,
    losses: EventLosses,
}

#[derive(Debug, Default)]
struct OfPod {
    events: PodEvents,
    lines: LineShares,
}

/// What was left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EventLosses {
    /// Events that are no longer listed, to make room for others. They are counted by rule.
    pub forgotten: u64,
    /// Lines about denials, refusals and failures that were left out of the log.
    pub left_out_of_log: u64,
}

impl RecentEvents {
    /// Keeps an event. Returns whether to log it: notes always, denials unless there are too many.
    pub fn record(&self, event: EventRecord) -> InLog {
        self.record_at(event, Timestamp::now(), Instant::now())
    }

    /// Whether a pod may have one more line about something that is not an event and that a peer may
    /// have caused.
    pub fn may_log(&self, pod: &ObjectName) -> InLog {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let share = &mut kept.of_pod(Some(pod.clone())).lines;
        let in_log = share.take(lines::LineKind::Incident, Instant::now());
        kept.count_line(in_log)
    }

    fn record_at(&self, event: EventRecord, at: Timestamp, now: Instant) -> InLog {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.add(event, at, now)
    }

    /// The kept events, the one that happened last at the end.
    pub fn list(&self) -> Vec<RecentEvent> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let events = kept.pods.values().flat_map(|pod| pod.events.list());
        let mut all: Vec<_> = events.cloned().collect();
        drop(kept);
        all.sort_by_key(|kept| kept.last);
        all
    }

    /// How often each rule decided, since the agent started.
    pub fn tallies(&self) -> Vec<RuleTally> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.tallies.list()
    }

    /// What was left out, since the agent started.
    pub fn losses(&self) -> EventLosses {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.losses
    }

    /// How many lines of each pod were left out since the last call.
    pub fn take_left_out(&self) -> Vec<LeftOut> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pods = kept.pods.iter_mut();
        let left_out = pods.map(|(pod, own)| LeftOut {
            pod: pod.clone(),
            lines: own.lines.take_left_out(),
        });
        left_out.filter(|left_out| left_out.lines > 0).collect()
    }
}

impl EventStore {
    fn add(&mut self, event: EventRecord, at: Timestamp, now: Instant) -> InLog {
        self.tallies.add(&event);
        let kind = event.kind;
        let pod = self.of_pod(event.pod.clone());
        let before = pod.events.groups();
        let (novelty, forgotten) = pod.events.add(event, at);
        let more = pod.events.groups() - before;
        let in_log = match (kind, novelty) {
            (EventKind::Note, _) => InLog::Written,
            (EventKind::Denial, Novelty::New) => pod.lines.take(lines::LineKind::NewDenial, now),
            (EventKind::Denial, Novelty::Repeated) => {
                pod.lines.take(lines::LineKind::RepeatedDenial, now)
            }
        };
        self.groups += more;
        self.losses.forgotten += forgotten;
        if self.groups > GROUPS {
            self.forget_one();
        }
        self.count_line(in_log)
    }

    fn count_line(&mut self, in_log: InLog) -> InLog {
        self.losses.left_out_of_log += u64::from(in_log == InLog::LeftOut);
        in_log
    }

    /// The events of a pod. If there are too many pods, the one that has been quiet the longest is dropped.
    fn of_pod(&mut self, name: Option<ObjectName>) -> &mut OfPod {
        if self.pods.len() >= PODS && !self.pods.contains_key(&name) {
            let pods = self.pods.iter();
            let quietest = pods.min_by_key(|(_, pod)| pod.events.last());
            if let Some(quietest) = quietest.map(|(name, _)| name.clone())
                && let Some(gone) = self.pods.remove(&quietest)
            {
                self.groups -= gone.events.groups();
                self.losses.forgotten += gone.events.list().map(|kept| kept.count).sum::<u64>();
            }
        }
        self.pods.entry(name).or_default()
    }

    /// Forgets a group of the pod that has the most.
    fn forget_one(&mut self) {
        let pods = self.pods.values_mut();
        if let Some(pod) = pods.max_by_key(|pod| pod.events.groups()) {
            self.losses.forgotten += pod.events.forget_one();
            self.groups -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
