//! Counts the payload of a connection.

use std::cell::Cell;
use std::rc::Rc;

/// Counts the payload of a connection from a source to a destination. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    sent: Rc<Cell<u64>>,
    received: Rc<Cell<u64>>,
}

/// Counts one direction.
pub(crate) type Count = Rc<Cell<u64>>;

impl Meter {
    /// Bytes from source to destination.
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Bytes from destination to source.
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// Counts bytes from source to destination.
    pub fn add_sent(&self, bytes: u64) {
        self.sent.set(self.sent.get() + bytes);
    }

    /// Counts bytes from destination to source.
    pub fn add_received(&self, bytes: u64) {
        self.received.set(self.received.get() + bytes);
    }

    /// The count of what comes from `party`.
    pub(crate) fn from(&self, party: crate::Party) -> &Count {
        match party {
            crate::Party::Client => &self.sent,
            crate::Party::Server => &self.received,
        }
    }
}
