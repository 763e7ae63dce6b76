//! One CONNECT stream.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use h2::{RecvStream, SendStream};

/// A stream that the other side has accepted.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) send: SendStream<Bytes>,
    pub(crate) receive: RecvStream,
    /// Its place on a pooled connection, given up with it.
    pub(crate) lease: Option<Lease>,
}

/// A stream's place on a pooled connection.
#[derive(Debug)]
pub(crate) struct Lease(Rc<Cell<usize>>);

impl Lease {
    pub(super) fn take(streams: &Rc<Cell<usize>>) -> Self {
        streams.set(streams.get() + 1);
        Self(Rc::clone(streams))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
