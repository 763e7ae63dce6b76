//! The state of one stream: what was received and is not delivered, and what may be sent.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::Waker;

use ambit_account::Charge;
use bytes::{Buf, BytesMut};
use tokio::io::ReadBuf;

use crate::failure::{StreamFailure, TunnelFailure};

/// The window that each stream begins with. It is guaranteed: the account has been charged for it.
pub(crate) const FIRST_WINDOW: usize = 16 << 10;

/// The largest window that a stream grows to.
const LARGEST_WINDOW: usize = 4 << 20;

/// Bytes of the first buffer of what is received. Each further one is as large as all before, up to
/// [`LARGEST_BUFFER`], so that the buffers take at most about twice what they hold.
const FIRST_BUFFER: usize = 1 << 10;
const LARGEST_BUFFER: usize = 64 << 10;

/// How many buffers one call writes.
pub(super) const GATHERED: usize = 32;

/// Where a stream's bytes are written as they come, without waiting for a task.
pub trait Sink {
    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// `WouldBlock` if there is no room. Any other error is final.
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// One stream.
pub(crate) struct Stream {
    pub(crate) head: Head,
    pub(crate) receiving: Receiving,
    pub(crate) sending: Sending,
    /// For what the peer may send.
    charge: Charge,
}

/// The head that the peer sent.
#[derive(Debug)]
pub(crate) enum Head {
    /// The client waits for its answer.
    Awaited,
    /// The answer came.
    Answer(u16),
    /// A request that was not taken yet.
    Untaken,
    /// The request was taken, and is not answered.
    Taken,
    /// The request is answered.
    Answered,
}

/// What comes from the peer.
pub(crate) struct Receiving {
    waiting: VecDeque<BytesMut>,
    /// The bytes in `waiting`.
    held: usize,
    /// What the peer may still send. It may be negative when settings have lowered it.
    window: i64,
    /// What the peer may have sent without its being delivered.
    target: usize,
    /// Bytes that were delivered, and that the peer may not send again yet.
    unannounced: usize,
    /// Whether the peer has used up its window since it was told of the last one.
    pinched: bool,
    pub(crate) state: Received,
    sink: Option<Rc<dyn Sink>>,
    sink_failed: Option<io::ErrorKind>,
    pub(crate) reader: Option<Waker>,
}

/// How far the peer's side of a stream has come.
#[derive(Clone, Debug)]
pub(crate) enum Received {
    Open,
    Ended,
    Failed(StreamFailure),
}

/// What goes to the peer.
#[derive(Debug)]
pub(crate) struct Sending {
    /// What may be sent; negative if settings have lowered it.
    pub(crate) window: i64,
    pub(crate) state: Sent,
    /// Why the peer takes nothing any more.
    pub(crate) stopped: Option<StreamFailure>,
    pub(crate) line: Line,
    /// Whether the stream had more to send than it was given room for.
    pub(crate) has_backlog: bool,
    pub(crate) writer: Option<Waker>,
}

/// How far this side of a stream has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sent {
    Open,
    Ended,
    Reset,
}

/// What a stream that has something to send waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    /// Nothing.
    Free,
    /// Its peer's reader.
    Window,
    /// Its turn among the streams of the connection.
    Turn,
}

/// What the peer is sent besides a larger window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Company {
    /// Nothing, so that it costs both sides a system call.
    Alone,
    /// Payload, at this moment.
    Payload,
}

/// What the reader of a stream has to know.
#[derive(Debug)]
pub enum Delivery {
    /// The sink has no room for what waits.
    Blocked,
    /// The sink failed. Everything else that comes is discarded.
    SinkFailed(io::ErrorKind),
    /// All was delivered, and the peer has ended its side.
    Ended,
    /// The stream is over. All that came before was delivered, unless the failure
    /// [overtakes](StreamFailure::overtakes) it.
    Failed(StreamFailure),
}

impl Stream {
    /// `window` is the one that the peer knows of; the charge covers it.
    pub(crate) fn new(head: Head, window: usize, peer_window: u32, charge: Charge) -> Self {
        Self {
            head,
            receiving: Receiving {
                waiting: VecDeque::new(),
                held: 0,
                window: window as i64,
                target: window,
                unannounced: 0,
                pinched: false,
                state: Received::Open,
                sink: None,
                sink_failed: None,
                reader: None,
            },
            sending: Sending {
                window: i64::from(peer_window),
                state: Sent::Open,
                stopped: None,
                line: Line::Free,
                has_backlog: false,
                writer: None,
            },
            charge,
        }
    }

    /// Whether neither side sends anything any more.
    pub(crate) const fn is_over(&self) -> bool {
        match (&self.receiving.state, self.sending.state) {
            _ if self.sending.stopped.is_some() => true,
            (_, Sent::Reset) | (Received::Failed(_), _) | (Received::Ended, Sent::Ended) => true,
            (Received::Open | Received::Ended, Sent::Open) | (Received::Open, Sent::Ended) => false,
        }
    }

    /// Ends the stream from outside. What has been received can still be delivered; if the peer has ended its
    /// side before, the stream only stops sending (RFC 9113, section 8.1).
    pub(crate) fn fail(&mut self, failure: StreamFailure) {
        if matches!(self.receiving.state, Received::Open) {
            self.receiving.state = Received::Failed(failure.clone());
        }
        self.sending.stopped.get_or_insert(failure);
        self.wake();
    }

    pub(crate) fn wake(&mut self) {
        self.sending.line = Line::Free;
        let wakers = [self.receiving.reader.take(), self.sending.writer.take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Counts payload, which [`Receiving::take_in`] gets next. `padding` is discarded.
    ///
    /// # Errors
    /// If the peer has sent more than its window allows.
    pub(crate) fn receive(&mut self, payload: usize, padding: usize) -> Result<(), TunnelFailure> {
        let receiving = &mut self.receiving;
        receiving.window -= (payload + padding) as i64;
        if receiving.window < 0 {
            return Err(TunnelFailure::flow_control());
        }
        receiving.pinched |= receiving.window < (receiving.target / 8) as i64;
        receiving.unannounced += padding;
        Ok(())
    }

    /// Lowers the window by what a peer that did not know the settings was granted beyond them.
    pub(crate) fn forget_default_window(&mut self, excess: usize) {
        self.receiving.window -= excess as i64;
        self.receiving.target -= excess;
        self.charge.shrink(excess);
    }

    /// Writes what waits to the sink, and wakes the reader if it has something to do.
    pub(crate) fn deliver(&mut self) {
        let receiving = &mut self.receiving;
        receiving.write_to_sink();
        if receiving.delivery().is_some() || (receiving.sink.is_none() && receiving.held > 0) {
            receiving.wake();
        }
    }

    /// Returns by how much the peer's window is to be raised, if it is worth telling the peer.
    pub(crate) fn take_increment(&mut self, company: Company) -> Option<u32> {
        let receiving = &mut self.receiving;
        let least = match company {
            Company::Alone => receiving.target / 2,
            Company::Payload => receiving.target / 4,
        };
        if !matches!(receiving.state, Received::Open) || receiving.unannounced < least {
            return None;
        }
        let mut increment = std::mem::take(&mut receiving.unannounced);
        let keeps_up = receiving.waiting.is_empty() && receiving.sink_failed.is_none();
        if receiving.pinched && keeps_up {
            receiving.pinched = false;
            let wanted = receiving.target.min(LARGEST_WINDOW - receiving.target);
            let more = self.charge.extend(wanted);
            receiving.target += more;
            increment += more;
        }
        receiving.window += increment as i64;
        u32::try_from(increment).ok()
    }
}

impl Receiving {
    /// Whether anything that was received waits.
    pub(crate) const fn is_waiting(&self) -> bool {
        self.held > 0
    }

    pub(crate) fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Attaches the sink that gets what has been received and what comes.
    pub(crate) fn attach(&mut self, sink: Rc<dyn Sink>) {
        self.sink = Some(sink);
    }

    /// What the reader has to know, if anything.
    pub(crate) fn delivery(&self) -> Option<Delivery> {
        if let Received::Failed(failure) = &self.state
            && failure.overtakes()
        {
            return Some(Delivery::Failed(failure.clone()));
        }
        if let Some(error) = self.sink_failed {
            return Some(Delivery::SinkFailed(error));
        }
        if self.held > 0 {
            return self.sink.as_ref().map(|_| Delivery::Blocked);
        }
        match &self.state {
            Received::Open => None,
            Received::Ended => Some(Delivery::Ended),
            Received::Failed(failure) => Some(Delivery::Failed(failure.clone())),
        }
    }

    /// Takes in payload. What the sink takes at once is not copied.
    pub(crate) fn take_in(&mut self, parts: &[IoSlice<'_>]) {
        let all: usize = parts.iter().map(|part| part.len()).sum();
        let mut written = 0;
        if self.held == 0
            && all > 0
            && let Some(sink) = &self.sink
        {
            match sink.write(parts) {
                Ok(bytes) => written = bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => self.discard(error.kind()),
            }
        }
        if self.sink_failed.is_some() {
            written = all;
        }
        self.unannounced += written;
        for part in parts {
            let skipped = written.min(part.len());
            written -= skipped;
            self.keep(&part[skipped..]);
        }
    }

    /// Lets payload wait.
    fn keep(&mut self, data: &[u8]) {
        self.held += data.len();
        let mut rest = data;
        if let Some(last) = self.waiting.back_mut() {
            let room = (last.capacity() - last.len()).min(rest.len());
            last.extend_from_slice(&rest[..room]);
            rest = &rest[room..];
        }
        if !rest.is_empty() {
            let size = self.held.clamp(FIRST_BUFFER, LARGEST_BUFFER);
            let mut buffer = BytesMut::with_capacity(size.max(rest.len()));
            buffer.extend_from_slice(rest);
            self.waiting.push_back(buffer);
        }
    }

    /// Discards what waits and what comes.
    pub(crate) fn discard(&mut self, why: io::ErrorKind) {
        self.sink_failed = Some(why);
        self.sink = None;
        self.took(self.held);
        self.waiting.clear();
    }

    pub(crate) fn write_to_sink(&mut self) {
        while let Some(sink) = &self.sink
            && self.held > 0
        {
            let mut parts = [IoSlice::new(&[]); GATHERED];
            for (part, buffer) in parts.iter_mut().zip(&self.waiting) {
                *part = IoSlice::new(buffer);
            }
            let filled = self.waiting.len().min(GATHERED);
            match sink.write(&parts[..filled]) {
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => self.discard(error.kind()),
            }
        }
    }

    /// Reads what waits.
    pub(crate) fn read(&mut self, into: &mut ReadBuf<'_>) {
        while let Some(first) = self.waiting.front()
            && into.remaining() > 0
        {
            let length = first.len().min(into.remaining());
            into.put_slice(&first[..length]);
            self.advance(length);
        }
    }

    fn advance(&mut self, mut bytes: usize) {
        self.took(bytes);
        while let Some(first) = self.waiting.front_mut() {
            let from_first = bytes.min(first.len());
            first.advance(from_first);
            bytes -= from_first;
            if !first.is_empty() {
                return;
            }
            self.waiting.pop_front();
        }
        // An empty queue has no memory of its own.
        self.waiting = VecDeque::new();
    }

    fn took(&mut self, bytes: usize) {
        self.held -= bytes;
        self.unannounced += bytes;
    }
}
