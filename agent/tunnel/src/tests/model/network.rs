//! A network without time: it takes and delivers as much as it is told to.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

use bytes::BytesMut;

use crate::failure::TunnelFailure;
use crate::wire::{Received, Take, Wire};

/// What one poll receives at most.
const READ: usize = 16 << 10;

/// Whether a task has something to do. It runs only then, so a wake-up that is lost is noticed.
pub(super) struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

impl Flag {
    /// Every task runs once before it waits.
    pub(super) fn raised() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    pub(super) fn raise(&self) {
        self.0.store(true, Relaxed);
    }

    pub(super) fn is_raised(&self) -> bool {
        self.0.load(Relaxed)
    }

    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Relaxed)
    }
}

/// One direction.
#[derive(Default)]
pub(super) struct Pipe {
    bytes: RefCell<VecDeque<u8>>,
    /// How many more bytes it takes.
    room: Cell<usize>,
    /// How many of its bytes have arrived.
    arrived: Cell<usize>,
    reader: Cell<Option<Waker>>,
    writer: Cell<Option<Waker>>,
}

impl Pipe {
    pub(super) fn make_room(&self, more: usize) {
        self.room.set(self.room.get() + more);
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    pub(super) fn arrive(&self, more: usize) {
        let all = self.bytes.borrow().len();
        self.arrived.set(all.min(self.arrived.get() + more));
        if self.arrived.get() > 0
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }

    /// Bytes that are on their way.
    pub(super) fn pending(&self) -> usize {
        self.bytes.borrow().len()
    }

    fn take(&self) -> Vec<u8> {
        let length = self.arrived.get().min(READ);
        self.arrived.set(self.arrived.get() - length);
        self.bytes.borrow_mut().drain(..length).collect()
    }
}

/// One side's end of the network.
pub(super) struct End {
    from: Rc<Pipe>,
    to: Rc<Pipe>,
    unsent: VecDeque<u8>,
}

impl End {
    pub(super) fn new(from: &Rc<Pipe>, to: &Rc<Pipe>) -> Self {
        let (from, to) = (Rc::clone(from), Rc::clone(to));
        let unsent = VecDeque::new();
        Self { from, to, unsent }
    }
}

impl Wire for End {
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        take: &mut Take<'_>,
    ) -> Poll<Result<Received, TunnelFailure>> {
        let bytes = self.from.take();
        if bytes.is_empty() {
            self.from.reader.set(Some(context.waker().clone()));
            return Poll::Pending;
        }
        Poll::Ready(take(&[&bytes]).map(|()| Received::Bytes))
    }

    fn send(&mut self, plaintext: BytesMut) -> io::Result<()> {
        self.unsent.extend(&plaintext);
        Ok(())
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let length = self.to.room.get().min(self.unsent.len());
        self.to.room.set(self.to.room.get() - length);
        self.to
            .bytes
            .borrow_mut()
            .extend(self.unsent.drain(..length));
        if self.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.to.writer.set(Some(context.waker().clone()));
        Poll::Pending
    }

    fn close(&mut self, _: &mut Context<'_>) {}

    fn limit_unsent(&self, _: usize) {}
}
