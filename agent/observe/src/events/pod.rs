//! The events of one pod, bounded so that no source displaces another.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use jiff::Timestamp;

use super::super::event::{EventKind, EventRecord, RecentEvent};
use ambit_model::WorkloadIdentity;

/// The most groups of similar events that are kept for a pod and kind.
pub(super) const GROUPS: usize = 64;

/// How many destinations and requests a group keeps separately.
const APART: usize = 4;

/// How many bits of an IPv6 address identify its holder, who can choose the rest.
const IPV6_HOLDER_BITS: u32 = 64;

/// The events of a pod by kind. Neither kind displaces the other.
#[derive(Debug, Default)]
pub(super) struct PodEvents {
    denials: EventGroups,
    notes: EventGroups,
}

/// Whether an event is similar to one that is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Novelty {
    /// It is the first of its group, or the first about its destination and request.
    New,
    /// There were others.
    Repeated,
}

/// Groups of similar events, oldest first.
#[derive(Debug, Default)]
struct EventGroups(Vec<Group>);

/// Events of one source that one rule decided.
#[derive(Debug)]
struct Group {
    holder: Holder,
    /// At least one. The last one stands for all that differ from the others.
    events: Vec<RecentEvent>,
}

/// Who caused an event, as far as a caller cannot choose it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Holder {
    Identity(WorkloadIdentity),
    Address(IpAddr),
}

impl PodEvents {
    /// Keeps an event, and forgets a group if there is no room. Returns how many events were forgotten.
    pub(super) fn add(&mut self, event: EventRecord, now: Timestamp) -> (Novelty, u64) {
        self.of_kind(event.kind).add(event, now)
    }

    /// How many groups there are.
    pub(super) fn groups(&self) -> usize {
        self.denials.0.len() + self.notes.0.len()
    }

    /// Forgets a group of the kind that has more. Returns how many events it had.
    pub(super) fn forget_one(&mut self) -> u64 {
        if self.notes.0.len() >= self.denials.0.len() {
            self.notes.forget_one()
        } else {
            self.denials.forget_one()
        }
    }

    /// All that are kept.
    pub(super) fn list(&self) -> impl Iterator<Item = &RecentEvent> {
        let groups = self.denials.0.iter().chain(&self.notes.0);
        groups.flat_map(|group| &group.events)
    }

    /// When the last one happened.
    pub(super) fn last(&self) -> Option<Timestamp> {
        self.list().map(|kept| kept.last).max()
    }

    fn of_kind(&mut self, kind: EventKind) -> &mut EventGroups {
        match kind {
            EventKind::Denial => &mut self.denials,
            EventKind::Note => &mut self.notes,
        }
    }
}

impl EventGroups {
    fn add(&mut self, event: EventRecord, now: Timestamp) -> (Novelty, u64) {
        let mut groups = self.0.iter_mut().rev();
        if let Some(group) = groups.find(|group| group.is_of(&event)) {
            return (group.add(event, now), 0);
        }
        let forgotten = if self.0.len() < GROUPS {
            0
        } else {
            self.forget_one()
        };
        self.0.push(Group {
            holder: Holder::of(&event),
            events: vec![RecentEvent::new(event, now)],
        });
        (Novelty::New, forgotten)
    }

    /// Forgets the oldest group of the holder who has the most, among those with a verified
    /// identity or those without: whichever are more than half. An address can be forged, an identity cannot.
    fn forget_one(&mut self) -> u64 {
        let verified = self.0.iter().filter(|group| group.holder.is_verified());
        let takes_from_verified = verified.count() * 2 > self.0.len();
        let mut counts = HashMap::new();
        let candidates = self.0.iter().enumerate();
        let candidates =
            candidates.filter(|(_, group)| group.holder.is_verified() == takes_from_verified);
        for (index, group) in candidates {
            let (_, count) = counts.entry(&group.holder).or_insert((index, 0));
            *count += 1;
        }
        // The oldest, if several have equally many.
        let most = counts
            .into_values()
            .max_by_key(|&(first, count)| (count, usize::MAX - first));
        most.map_or(0, |(first, _)| self.0.remove(first).total())
    }
}

impl Group {
    fn is_of(&self, event: &EventRecord) -> bool {
        let first = self.events.first();
        first.is_some_and(|first| first.event.is_alike(event))
    }

    fn add(&mut self, event: EventRecord, now: Timestamp) -> Novelty {
        let room = self.events.len() < APART;
        let mut same = self.events.iter_mut();
        if let Some(kept) = same.find(|kept| !kept.various && kept.event.is_about_the_same(&event))
        {
            kept.add(event, now);
            return Novelty::Repeated;
        }
        match self.events.last_mut() {
            Some(last) if !room => {
                last.add(event, now);
                Novelty::Repeated
            }
            _ => {
                self.events.push(RecentEvent::new(event, now));
                Novelty::New
            }
        }
    }

    fn total(&self) -> u64 {
        self.events.iter().map(|kept| kept.count).sum()
    }
}

impl Holder {
    fn of(event: &EventRecord) -> Self {
        match &event.identity {
            Some(identity) => Self::Identity(identity.clone()),
            None => Self::Address(holder_of(event.source.ip())),
        }
    }

    const fn is_verified(&self) -> bool {
        matches!(self, Self::Identity(_))
    }
}

fn holder_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let host_bits = u128::BITS - IPV6_HOLDER_BITS;
            IpAddr::V6(Ipv6Addr::from_bits(
                address.to_bits() >> host_bits << host_bits,
            ))
        }
    }
}
