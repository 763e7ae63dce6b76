//! A room that threads share. Whoever holds a seat learns when it has been given to another.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::room::{NoRoom, PlaceId, Room};

/// The seats of a room. Clones share it.
pub struct Seats<K>(Arc<Mutex<Shared<K>>>);

struct Shared<K> {
    room: Room<K>,
    /// How those who hold a place are told that they have lost it.
    tell: HashMap<PlaceId, oneshot::Sender<()>>,
}

/// A seat, given up when dropped.
pub struct Seat<K: Clone + Eq + Hash> {
    handle: SeatHandle<K>,
    /// `None` once it has been displaced.
    displaced: Option<oneshot::Receiver<()>>,
}

/// What a seat is used by.
pub struct SeatHandle<K> {
    seats: Seats<K>,
    place: PlaceId,
}

/// A use of a seat. Until it is dropped, nobody displaces the seat.
pub struct Occupied<K: Clone + Eq + Hash>(SeatHandle<K>);

impl<K: Clone + Eq + Hash> Seats<K> {
    /// With room for this many.
    pub fn new(capacity: usize) -> Self {
        let (room, tell) = (Room::new(capacity), HashMap::new());
        Self(Arc::new(Mutex::new(Shared { room, tell })))
    }

    /// Takes a seat, which is idle at first, for a source.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn take(&self, source: K) -> Result<Seat<K>, NoRoom> {
        let mut shared = self.lock();
        let entered = shared.room.enter(source)?;
        let (tell, displaced) = oneshot::channel();
        shared.tell.insert(entered.place, tell);
        let lost = entered.displaced.and_then(|lost| shared.tell.remove(&lost));
        drop(shared);
        if let Some(lost) = lost {
            // One that is about to leave anyway does not listen.
            let _ = lost.send(());
        }
        let handle = SeatHandle {
            seats: self.clone(),
            place: entered.place,
        };
        let displaced = Some(displaced);
        Ok(Seat { handle, displaced })
    }

    fn lock(&self) -> MutexGuard<'_, Shared<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> Seat<K> {
    /// Resolves when the seat has been given to another: its connection has to end.
    pub async fn displaced(&mut self) {
        if let Some(displaced) = &mut self.displaced {
            // The sender lives as long as this seat, unless it is displaced.
            let _ = displaced.await;
            self.displaced = None;
        }
    }

    /// What the seat is used by.
    pub fn handle(&self) -> SeatHandle<K> {
        self.handle.clone()
    }
}

impl<K: Clone + Eq + Hash> SeatHandle<K> {
    /// Uses the seat.
    pub fn occupy(&self) -> Occupied<K> {
        self.seats.lock().room.occupy(self.place);
        Occupied(self.clone())
    }
}

impl<K: Clone + Eq + Hash> Drop for Seat<K> {
    fn drop(&mut self) {
        let SeatHandle { seats, place } = &self.handle;
        let mut shared = seats.lock();
        shared.room.leave(*place);
        shared.tell.remove(place);
    }
}

impl<K: Clone + Eq + Hash> Drop for Occupied<K> {
    fn drop(&mut self) {
        let SeatHandle { seats, place } = &self.0;
        seats.lock().room.release(*place);
    }
}

impl<K> Clone for Seats<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> Clone for SeatHandle<K> {
    fn clone(&self) -> Self {
        Self {
            seats: self.seats.clone(),
            place: self.place,
        }
    }
}

impl<K> fmt::Debug for Seats<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seats").finish_non_exhaustive()
    }
}

impl<K: Clone + Eq + Hash> fmt::Debug for Seat<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Seat").field(&self.handle.place).finish()
    }
}

impl<K> fmt::Debug for SeatHandle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SeatHandle").field(&self.place).finish()
    }
}

impl<K: Clone + Eq + Hash> fmt::Debug for Occupied<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Occupied").field(&self.0.place).finish()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn whoever_is_displaced_is_told_and_nobody_else() {
        let seats = Seats::new(2);
        let mut first = seats.take("a").expect("free");
        let mut second = seats.take("a").expect("free");
        assert!(first.displaced().now_or_never().is_none());
        let _third = seats.take("b").expect("of the largest source");
        for _ in 0..2 {
            assert!(first.displaced().now_or_never().is_some());
        }
        assert!(second.displaced().now_or_never().is_none());
    }

    #[test]
    fn a_seat_in_use_is_kept_until_the_use_ends() {
        let seats = Seats::new(1);
        let mut seat = seats.take("a").expect("free");
        let used = seat.handle().occupy();
        assert!(seats.take("b").is_err());
        assert!(seat.displaced().now_or_never().is_none());
        drop(used);
        let _taken = seats.take("b").expect("idle");
        assert!(seat.displaced().now_or_never().is_some());
    }

    #[test]
    fn a_seat_is_given_back() {
        let seats = Seats::new(1);
        for _ in 0..10 {
            let seat = seats.take("a").expect("given back");
            let used = seat.handle().occupy();
            drop(seat);
            drop(used);
        }
        let shared = seats.lock();
        assert!(shared.tell.is_empty());
    }
}
