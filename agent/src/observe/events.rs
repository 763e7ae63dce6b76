//! Recent denials, and what policies had noted, kept for the operator.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::event::{EventKind, EventRecord};
use super::tally::{RuleTally, Tallies};

/// How many of each kind are kept.
const KEPT: usize = 1000;

/// Among how many of the last ones of its kind a repeat is looked for: those of several callers, and
/// several notes of one request, come by turns.
const FOLDED: usize = 8;

/// Keeps the most recent events; repeated ones are folded into one. Neither kind takes the other's
/// room.
#[derive(Debug, Default)]
pub struct RecentEvents(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    denials: VecDeque<Numbered>,
    notes: VecDeque<Numbered>,
    tallies: Tallies,
    next: u64,
}

/// An event, and its place among those of both kinds.
#[derive(Debug)]
struct Numbered {
    number: u64,
    event: EventRecord,
}

impl RecentEvents {
    /// Keeps an event.
    pub fn record(&self, event: EventRecord) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.add(event);
    }

    /// The kept events, oldest first.
    pub fn list(&self) -> Vec<EventRecord> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = kept.denials.iter().chain(&kept.notes).collect();
        all.sort_by_key(|numbered| numbered.number);
        all.into_iter()
            .map(|numbered| numbered.event.clone())
            .collect()
    }

    /// How often each rule decided, since the agent started.
    pub fn tallies(&self) -> Vec<RuleTally> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.tallies.list()
    }
}

impl Kept {
    fn add(&mut self, event: EventRecord) {
        self.tallies.add(&event);
        let same_kind = match event.kind {
            EventKind::Denial => &mut self.denials,
            EventKind::Note => &mut self.notes,
        };
        let mut last = same_kind.iter_mut().rev().take(FOLDED);
        if let Some(known) = last.find(|known| known.event.is_repeated_by(&event)) {
            known.event.count += event.count;
            return;
        }
        if same_kind.len() == KEPT {
            same_kind.pop_front();
        }
        let number = self.next;
        self.next += 1;
        same_kind.push_back(Numbered { number, event });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Layer;

    fn event(kind: EventKind, source: &str, reason: &'static str) -> EventRecord {
        EventRecord {
            kind,
            side: "inbound",
            decided_in: Layer::Kernel,
            hook: Some("inbound"),
            pod: None,
            source: source.parse().unwrap(),
            destination: "10.0.0.2:80".parse().unwrap(),
            identity: None,
            request: None,
            reason,
            policy: None,
            count: 1,
        }
    }

    fn denial(source: &str, reason: &'static str) -> EventRecord {
        event(EventKind::Denial, source, reason)
    }

    fn counts(recent: &RecentEvents) -> Vec<(&'static str, u64)> {
        let events = recent.list();
        events
            .iter()
            .map(|kept| (kept.reason, kept.count))
            .collect()
    }

    #[test]
    fn repeats_are_folded_also_where_they_come_by_turns() {
        let recent = RecentEvents::default();
        for port in 1..4 {
            recent.record(denial(&format!("10.0.0.1:{port}"), "a"));
            recent.record(event(EventKind::Note, "10.0.0.1:1", "audited"));
            recent.record(denial(&format!("10.0.0.1:{port}"), "b"));
        }
        assert_eq!(counts(&recent), [("a", 3), ("audited", 3), ("b", 3)]);
    }

    #[test]
    fn what_another_policy_decides_is_no_repeat() {
        let recent = RecentEvents::default();
        for policy in ["a", "b"] {
            let mut event = denial("10.0.0.1:1", "denied");
            event.policy = Some(policy.to_owned());
            recent.record(event);
        }
        assert_eq!(counts(&recent), [("denied", 1), ("denied", 1)]);
    }

    #[test]
    fn the_oldest_of_a_kind_go_and_a_flood_of_notes_leaves_the_denials() {
        let recent = RecentEvents::default();
        recent.record(denial("10.0.0.1:1", "first"));
        let flood = |kind| {
            for n in 0..KEPT {
                let source = format!("10.1.{}.{}:1", n / 250, n % 250);
                recent.record(event(kind, &source, "flood"));
            }
        };
        flood(EventKind::Note);
        let kept = recent.list();
        assert_eq!((kept.len(), kept[0].reason), (KEPT + 1, "first"));
        flood(EventKind::Denial);
        let kept = recent.list();
        assert_eq!(kept.len(), 2 * KEPT);
        assert!(kept.iter().all(|event| event.reason == "flood"));
    }
}
