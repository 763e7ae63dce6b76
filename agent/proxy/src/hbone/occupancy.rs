//! How many streams a pooled connection carries, and how they fare.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

/// The streams of a connection, counted by their leases.
#[derive(Debug)]
pub(super) struct Occupancy {
    open: Cell<bool>,
    streams: Cell<usize>,
    stalled: Cell<usize>,
    /// When the last stream came or went.
    used: Cell<Instant>,
}

impl Occupancy {
    pub(super) fn new() -> Self {
        Self {
            open: Cell::new(true),
            streams: Cell::new(0),
            stalled: Cell::new(0),
            used: Cell::new(Instant::now()),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.get()
    }

    pub(super) fn close(&self) {
        self.open.set(false);
    }

    pub(super) fn streams(&self) -> usize {
        self.streams.get()
    }

    /// Streams that wait for their peer to read.
    pub(super) fn stalled(&self) -> usize {
        self.stalled.get()
    }

    /// How long there has been no stream; zero while there is one.
    pub(super) fn idle_for(&self) -> Duration {
        match self.streams.get() {
            0 => self.used.get().elapsed(),
            _ => Duration::ZERO,
        }
    }
}

/// A stream's place on a pooled connection, given up when it is dropped.
#[derive(Debug)]
pub(crate) struct Lease(Rc<Occupancy>);

/// A stream that waits for its peer to read, until this is dropped.
#[derive(Debug)]
pub(crate) struct Stall<'a>(&'a Occupancy);

impl Lease {
    pub(super) fn take(occupancy: &Rc<Occupancy>) -> Self {
        occupancy.streams.set(occupancy.streams.get() + 1);
        occupancy.used.set(Instant::now());
        Self(Rc::clone(occupancy))
    }

    /// Counts the stream as one that waits.
    pub(crate) fn stall(&self) -> Stall<'_> {
        self.0.stalled.set(self.0.stalled.get() + 1);
        Stall(&self.0)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.used.set(Instant::now());
    }
}

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        self.0.stalled.set(self.0.stalled.get() - 1);
    }
}
