//! A limited number of places, shared among sources.
//!
//! * A source may take up to [`SHARE`] times as many places as are left free, so that each leaves a
//!   ninth of what it found to the next one.
//! * A newcomer beyond that displaces the place that has been idle longest, among those of the
//!   source that holds most. So a source loses a place only while no other source with an idle place
//!   holds more: with `k` other sources, `capacity / (k + 2)` places are its own.
//! * Where there are more sources than places, each has one, and the oldest one goes. A newcomer gets
//!   in all the same, and stays until as many others have come as there are places.
//! * A place that is in use is never taken away. So a newcomer is refused where no place is idle, and
//!   none is free: where some sources, each of which took its part of what was left, use them all.
//!
//! Every operation takes logarithmic time. Memory is bounded by the number of places.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// How many times the free places one source may hold.
const SHARE: usize = 8;

/// A place in a [`Room`]. Numbers are not used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct PlaceId(u64);

/// When a place became idle: a count of what has happened in the room.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Moment(u64);

/// Places, and who holds them.
#[derive(Debug)]
pub(crate) struct Room<K> {
    capacity: usize,
    clock: u64,
    places: HashMap<PlaceId, Place<K>>,
    sources: HashMap<K, Holdings>,
    /// The sources that have an idle place, by how many places they hold. Of two that hold as many,
    /// the one whose oldest idle place is older comes last.
    displaceable: BTreeMap<(usize, Reverse<Moment>), K>,
}

#[derive(Debug)]
struct Place<K> {
    source: K,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle(Moment),
    /// Used by so many at the same time.
    InUse(usize),
}

/// What one source holds.
#[derive(Debug, Default)]
struct Holdings {
    places: usize,
    idle: BTreeMap<Moment, PlaceId>,
}

/// A newcomer's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entered {
    pub place: PlaceId,
    /// Whose place it was: that one has left the room.
    pub displaced: Option<PlaceId>,
}

/// The room is full, and no source holds a place that may be taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("every place is in use")]
pub struct NoRoom;

impl Holdings {
    /// The key under which the source can be displaced.
    fn rank(&self) -> Option<(usize, Reverse<Moment>)> {
        let (&oldest, _) = self.idle.first_key_value()?;
        Some((self.places, Reverse(oldest)))
    }
}

impl<K: Clone + Eq + Hash> Room<K> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            clock: 0,
            places: HashMap::new(),
            sources: HashMap::new(),
            displaceable: BTreeMap::new(),
        }
    }

    /// Takes a place, which is idle at first, for a source.
    ///
    /// # Errors
    /// [`NoRoom`]; nothing has changed then.
    pub(crate) fn enter(&mut self, source: K) -> Result<Entered, NoRoom> {
        let held = self.held(&source);
        let free = self.capacity - self.places.len();
        let displaced = if held < free.saturating_mul(SHARE) {
            None
        } else {
            Some(self.to_displace(&source, held).ok_or(NoRoom)?)
        };
        if let Some(displaced) = displaced {
            self.leave(displaced);
        }
        let now = self.tick();
        let place = PlaceId(now.0);
        self.change(&source, |holdings| {
            holdings.places += 1;
            holdings.idle.insert(now, place);
        });
        let state = State::Idle(now);
        self.places.insert(place, Place { source, state });
        Ok(Entered { place, displaced })
    }

    /// Gives a place up. A displaced place no longer exists, and this does nothing.
    pub(crate) fn leave(&mut self, place: PlaceId) {
        let Some(Place { source, state }) = self.places.remove(&place) else {
            return;
        };
        self.change(&source, |holdings| {
            holdings.places -= 1;
            if let State::Idle(since) = state {
                holdings.idle.remove(&since);
            }
        });
    }

    /// Marks a place as in use by one more. It is not taken away until [`Room::release`].
    pub(crate) fn occupy(&mut self, place: PlaceId) {
        let Some(held) = self.places.get_mut(&place) else {
            return;
        };
        match held.state {
            State::InUse(users) => held.state = State::InUse(users + 1),
            State::Idle(since) => {
                held.state = State::InUse(1);
                let source = held.source.clone();
                self.change(&source, |holdings| {
                    holdings.idle.remove(&since);
                });
            }
        }
    }

    /// Ends one use. When it was the last one, the place is idle from now on.
    pub(crate) fn release(&mut self, place: PlaceId) {
        let now = self.tick();
        let Some(held) = self.places.get_mut(&place) else {
            return;
        };
        match held.state {
            State::Idle(_) => {}
            State::InUse(2..) => {
                if let State::InUse(users) = &mut held.state {
                    *users -= 1;
                }
            }
            State::InUse(_) => {
                held.state = State::Idle(now);
                let source = held.source.clone();
                self.change(&source, |holdings| {
                    holdings.idle.insert(now, place);
                });
            }
        }
    }

    fn held(&self, source: &K) -> usize {
        self.sources.get(source).map_or(0, |held| held.places)
    }

    /// The place that a newcomer of a source, which holds `held`, may take.
    fn to_displace(&self, newcomer: &K, held: usize) -> Option<PlaceId> {
        let largest = self.displaceable.last_key_value();
        let loser = match largest {
            Some(((places, _), source)) if *places > held => source,
            Some(_) | None => newcomer,
        };
        let (_, place) = self.sources.get(loser)?.idle.first_key_value()?;
        Some(*place)
    }

    /// Changes what a source holds, and keeps the ranking up to date.
    fn change(&mut self, source: &K, change: impl FnOnce(&mut Holdings)) {
        let holdings = self.sources.entry(source.clone()).or_default();
        let before = holdings.rank();
        change(holdings);
        let after = holdings.rank();
        if holdings.places == 0 {
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

    fn tick(&mut self) -> Moment {
        self.clock += 1;
        Moment(self.clock)
    }
}

#[cfg(test)]
mod tests;
