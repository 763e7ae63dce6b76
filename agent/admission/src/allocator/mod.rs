//! A limited number of seats, shared among sources.
//!
//! * A source may hold up to [`SHARE`] times as many seats as are free, so each source leaves a ninth of
//!   what it found to the next one.
//! * A newcomer beyond that displaces a seat: the one that has been idle longest, of the source that holds
//!   the most seats. So a source loses a seat only if no other source with an idle seat holds more. With
//!   `k` other sources, it keeps at least `capacity / (k + 2)` seats.
//! * If there are more sources than seats, each source has one seat, and a newcomer displaces the oldest.
//!   It keeps its seat until as many others have come as there are seats.
//! * A seat in use is never taken away. So a newcomer is refused if no seat is free or idle, which means
//!   that other sources use all of theirs.
//!
//! Every operation takes logarithmic time. Memory is bounded by the number of seats.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// A source may hold this many times the number of free seats.
const SHARE: usize = 8;

/// A seat of a [`SeatAllocator`]. Numbers are never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct SeatId(u64);

/// When a seat became idle: the number of events that the allocator had counted by then.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct IdleSince(u64);

/// Decides who gets a seat, and whose seat is taken for it.
#[derive(Debug)]
pub(crate) struct SeatAllocator<K> {
    capacity: usize,
    clock: u64,
    seats: HashMap<SeatId, HeldSeat<K>>,
    sources: HashMap<K, Holdings>,
    /// The sources that have an idle seat, by how many seats they hold. If two hold equally many, the one
    /// whose oldest idle seat is older comes last.
    displaceable: BTreeMap<(usize, Reverse<IdleSince>), K>,
}

#[derive(Debug)]
struct HeldSeat<K> {
    source: K,
    state: SeatState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SeatState {
    Idle(IdleSince),
    /// Used by this many at the same time.
    InUse(usize),
}

/// The seats of one source.
#[derive(Debug, Default)]
struct Holdings {
    seats: usize,
    idle: BTreeMap<IdleSince, SeatId>,
}

/// A newcomer's seat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NewSeat {
    pub seat: SeatId,
    /// The seat that was taken away for it.
    pub displaced: Option<SeatId>,
}

/// All seats are taken, and none of them may be taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("every place is in use")]
pub struct NoSeat;

impl Holdings {
    /// The source's key in [`SeatAllocator::displaceable`]; `None` if it has no idle seat.
    fn rank(&self) -> Option<(usize, Reverse<IdleSince>)> {
        let (&oldest, _) = self.idle.first_key_value()?;
        Some((self.seats, Reverse(oldest)))
    }
}

impl<K: Clone + Eq + Hash> SeatAllocator<K> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            clock: 0,
            seats: HashMap::new(),
            sources: HashMap::new(),
            displaceable: BTreeMap::new(),
        }
    }

    /// Takes a seat for a source. The seat is idle at first.
    ///
    /// # Errors
    /// [`NoSeat`]; nothing has changed.
    pub(crate) fn take(&mut self, source: K) -> Result<NewSeat, NoSeat> {
        let held = self.held(&source);
        let free = self.capacity - self.seats.len();
        let displaced = if held < free.saturating_mul(SHARE) {
            None
        } else {
            Some(self.to_displace(&source, held).ok_or(NoSeat)?)
        };
        if let Some(displaced) = displaced {
            self.leave(displaced);
        }
        let now = self.tick();
        let seat = SeatId(now.0);
        self.change(&source, |holdings| {
            holdings.seats += 1;
            holdings.idle.insert(now, seat);
        });
        let state = SeatState::Idle(now);
        self.seats.insert(seat, HeldSeat { source, state });
        Ok(NewSeat { seat, displaced })
    }

    /// Gives a seat up. Does nothing if the seat was displaced.
    pub(crate) fn leave(&mut self, seat: SeatId) {
        let Some(HeldSeat { source, state }) = self.seats.remove(&seat) else {
            return;
        };
        self.change(&source, |holdings| {
            holdings.seats -= 1;
            if let SeatState::Idle(since) = state {
                holdings.idle.remove(&since);
            }
        });
    }

    /// Begins a use of a seat. The seat is not taken away before [`SeatAllocator::release`].
    pub(crate) fn occupy(&mut self, seat: SeatId) {
        let Some(held) = self.seats.get_mut(&seat) else {
            return;
        };
        match held.state {
            SeatState::InUse(users) => held.state = SeatState::InUse(users + 1),
            SeatState::Idle(since) => {
                held.state = SeatState::InUse(1);
                let source = held.source.clone();
                self.change(&source, |holdings| {
                    holdings.idle.remove(&since);
                });
            }
        }
    }

    /// Ends one use of a seat. After the last one, the seat is idle.
    pub(crate) fn release(&mut self, seat: SeatId) {
        let now = self.tick();
        let Some(held) = self.seats.get_mut(&seat) else {
            return;
        };
        match held.state {
            SeatState::Idle(_) => {}
            SeatState::InUse(2..) => {
                if let SeatState::InUse(users) = &mut held.state {
                    *users -= 1;
                }
            }
            SeatState::InUse(_) => {
                held.state = SeatState::Idle(now);
                let source = held.source.clone();
                self.change(&source, |holdings| {
                    holdings.idle.insert(now, seat);
                });
            }
        }
    }

    fn held(&self, source: &K) -> usize {
        self.sources.get(source).map_or(0, |held| held.seats)
    }

    /// Returns the seat that a newcomer may take, whose source holds `held` seats.
    fn to_displace(&self, newcomer: &K, held: usize) -> Option<SeatId> {
        let largest = self.displaceable.last_key_value();
        let loser = match largest {
            Some(((seats, _), source)) if *seats > held => source,
            Some(_) | None => newcomer,
        };
        let (_, seat) = self.sources.get(loser)?.idle.first_key_value()?;
        Some(*seat)
    }

    /// Changes what a source holds, and keeps the ranking up to date.
    fn change(&mut self, source: &K, change: impl FnOnce(&mut Holdings)) {
        let holdings = self.sources.entry(source.clone()).or_default();
        let before = holdings.rank();
        change(holdings);
        let after = holdings.rank();
        if holdings.seats == 0 {
            self.sources.remove(source);
        }
        if before == after {
            return;
        }
        if let Some(rank) = before {
            self.displaceable.remove(&rank);
        }
        if let Some(rank) = after {
            self.displaceable.insert(rank, source.clone());
        }
    }

    fn tick(&mut self) -> IdleSince {
        self.clock += 1;
        IdleSince(self.clock)
    }
}

#[cfg(test)]
mod tests;
