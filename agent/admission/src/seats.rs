//! Seats that threads share. A connection learns when its seat has been given to another.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::allocator::{NoSeat, SeatAllocator, SeatId};

/// A limited number of seats. Clones share them.
pub struct Seats<K>(Arc<Mutex<Shared<K>>>);

struct Shared<K> {
    allocator: SeatAllocator<K>,
    /// Tells the holder of each seat that it has lost the seat.
    tell: HashMap<SeatId, oneshot::Sender<()>>,
}

/// A seat, given up when dropped.
pub struct Seat<K: Clone + Eq + Hash> {
    handle: SeatHandle<K>,
    /// `None` once it has been displaced.
    displaced: Option<oneshot::Receiver<()>>,
}

/// Begins uses of a seat.
pub struct SeatHandle<K> {
    seats: Seats<K>,
    seat: SeatId,
}

/// A use of a seat. The seat cannot be displaced before this is dropped.
pub struct Occupied<K: Clone + Eq + Hash>(SeatHandle<K>);

impl<K: Clone + Eq + Hash> Seats<K> {
    /// Makes this many seats.
    pub fn new(capacity: usize) -> Self {
        let (allocator, tell) = (SeatAllocator::new(capacity), HashMap::new());
        Self(Arc::new(Mutex::new(Shared { allocator, tell })))
    }

    /// Takes a seat for a source. The seat is idle at first.
    ///
    /// # Errors
    /// [`NoSeat`] if all seats are taken and none of them may be taken away.
    pub fn take(&self, source: K) -> Result<Seat<K>, NoSeat> {
        let mut shared = self.lock();
        let entered = shared.allocator.take(source)?;
        let (tell, displaced) = oneshot::channel();
        shared.tell.insert(entered.seat, tell);
        let lost = entered.displaced.and_then(|lost| shared.tell.remove(&lost));
        drop(shared);
        if let Some(lost) = lost {
            // An error means that the holder is about to give its seat up anyway.
            let _ = lost.send(());
        }
        let handle = SeatHandle {
            seats: self.clone(),
            seat: entered.seat,
        };
        let displaced = Some(displaced);
        Ok(Seat { handle, displaced })
    }

    fn lock(&self) -> MutexGuard<'_, Shared<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> Seat<K> {
    /// Resolves when the seat has been given to another. The connection has to end then.
    pub async fn displaced(&mut self) {
        if let Some(displaced) = &mut self.displaced {
            // The sender lives as long as this seat, unless the seat is displaced.
            let _ = displaced.await;
            self.displaced = None;
        }
    }

    /// Returns a handle that begins uses of the seat.
    pub fn handle(&self) -> SeatHandle<K> {
        self.handle.clone()
    }
}

impl<K: Clone + Eq + Hash> SeatHandle<K> {
    /// Begins a use of the seat.
    pub fn occupy(&self) -> Occupied<K> {
        self.seats.lock().allocator.occupy(self.seat);
        Occupied(self.clone())
    }
}

impl<K: Clone + Eq + Hash> Drop for Seat<K> {
    fn drop(&mut self) {
        let SeatHandle { seats, seat } = &self.handle;
        let mut shared = seats.lock();
        shared.allocator.leave(*seat);
        shared.tell.remove(seat);
    }
}

impl<K: Clone + Eq + Hash> Drop for Occupied<K> {
    fn drop(&mut self) {
        let SeatHandle { seats, seat } = &self.0;
        seats.lock().allocator.release(*seat);
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
            seat: self.seat,
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
        f.debug_tuple("Seat").field(&self.handle.seat).finish()
    }
}

impl<K> fmt::Debug for SeatHandle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SeatHandle").field(&self.seat).finish()
    }
}

impl<K: Clone + Eq + Hash> fmt::Debug for Occupied<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Occupied").field(&self.0.seat).finish()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn only_the_displaced_holder_is_told() {
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
