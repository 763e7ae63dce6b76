//! How often each policy and rule decided.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::event::{EventKind, EventRecord};
use ambit_policy::Layer;

/// How many combinations are counted separately. Further ones are counted without their policies.
const TOLD_APART: usize = 2048;

/// How often something was denied or noted for one reason, by one rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RuleTally {
    /// What it was.
    pub kind: EventKind,
    /// Whether the kernel or the proxy decided.
    pub decided_in: Layer,
    /// The word of the reason.
    pub reason: Cow<'static, str>,
    /// The policy and rule that decided, if one did.
    pub policy: Option<String>,
    /// How often. The kernel reports at most a hundred denials a second for each pod.
    pub count: u64,
}

/// Counts events by what decided them.
#[derive(Debug, Default)]
pub(super) struct Tallies(BTreeMap<TallyKey, u64>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct TallyKey {
    kind: EventKind,
    decided_in: Layer,
    reason: &'static str,
    policy: Option<String>,
}

impl Tallies {
    pub(super) fn add(&mut self, event: &EventRecord) {
        let mut key = TallyKey {
            kind: event.kind,
            decided_in: event.decided_in,
            reason: event.reason,
            policy: event.policy.clone(),
        };
        if self.0.len() >= TOLD_APART && !self.0.contains_key(&key) {
            key.policy = None;
        }
        *self.0.entry(key).or_default() += 1;
    }

    pub(super) fn list(&self) -> Vec<RuleTally> {
        let tallies = self.0.iter().map(|(key, &count)| RuleTally {
            kind: key.kind,
            decided_in: key.decided_in,
            reason: Cow::Borrowed(key.reason),
            policy: key.policy.clone(),
            count,
        });
        tallies.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(policy: &str) -> EventRecord {
        EventRecord {
            kind: EventKind::Denial,
            direction: "inbound",
            decided_in: Layer::Kernel,
            hook: None,
            pod: None,
            source: "10.0.0.1:1".parse().unwrap(),
            destination: "10.0.0.2:80".parse().unwrap(),
            identity: None,
            request: None,
            reason: "denied-by-policy",
            policy: Some(policy.to_owned()),
        }
    }

    #[test]
    fn rules_are_counted_apart() {
        let mut tallies = Tallies::default();
        for policy in ["a rule 0", "a rule 1", "a rule 0"] {
            tallies.add(&event(policy));
        }
        let counts: Vec<_> = tallies
            .list()
            .into_iter()
            .map(|tally| (tally.policy.unwrap(), tally.count))
            .collect();
        assert_eq!(counts, [("a rule 0".into(), 2), ("a rule 1".into(), 1)]);
    }

    #[test]
    fn further_combinations_are_counted_together() {
        let mut tallies = Tallies::default();
        for number in 0..TOLD_APART + 5 {
            tallies.add(&event(&number.to_string()));
        }
        tallies.add(&event("0"));
        let list = tallies.list();
        assert_eq!(list.len(), TOLD_APART + 1);
        assert_eq!((list[0].policy.as_deref(), list[0].count), (None, 5));
        assert_eq!((list[1].policy.as_deref(), list[1].count), (Some("0"), 2));
    }
}
