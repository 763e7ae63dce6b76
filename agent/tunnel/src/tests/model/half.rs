//! One side's half of a stream: what it has still to send, and what it does with what comes.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::ReadBuf;

use super::network::Flag;
use crate::{Delivery, ErrorCode, Sink, Stream, StreamFailure};

/// How a half left before its stream was over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// It reset the stream, after all that it sent.
    AfterAll,
    /// With a reset that overtakes.
    AtOnce,
}

/// What a half does with what comes.
enum Mode {
    Reads,
    Sink(Rc<Narrow>),
    Discards,
}

/// How the peer's side ended.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    InOrder,
    Failed(StreamFailure),
}

/// A sink with little room.
struct Narrow {
    room: Cell<usize>,
    got: Rc<Got>,
}

/// What was received, compared with what the other half sends.
struct Got {
    seed: usize,
    bytes: Cell<usize>,
    wrong: RefCell<Option<usize>>,
}

/// One side's half of a stream.
pub(super) struct Half {
    stream: Option<Stream>,
    seed: usize,
    /// Whether a client has heard its answer.
    is_answered: bool,
    /// Bytes that the application has for the stream, and those that were sent.
    wanted: usize,
    pub(super) sent: usize,
    wants_end: bool,
    has_ended: bool,
    pub(super) stopped: Option<StreamFailure>,
    sender: Arc<Flag>,
    mode: Mode,
    got: Rc<Got>,
    pub(super) ending: Option<Ending>,
    reader: Arc<Flag>,
    pub(super) left: Option<Left>,
}

/// The byte at a place of what a half sends.
fn byte(seed: usize, place: usize) -> u8 {
    (seed * 101 + place + place / 251) as u8
}

impl Got {
    fn take(&self, bytes: &[u8]) {
        for &got in bytes {
            let place = self.bytes.get();
            if got != byte(self.seed, place) {
                self.wrong.borrow_mut().get_or_insert(place);
            }
            self.bytes.set(place + 1);
        }
    }
}

impl Sink for Narrow {
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut written = 0;
        for part in parts {
            let length = part.len().min(self.room.get());
            self.got.take(&part[..length]);
            self.room.set(self.room.get() - length);
            written += length;
        }
        match written {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            written => Ok(written),
        }
    }
}

impl Half {
    /// `seed` is that of what it sends, `other` that of what comes.
    pub(super) fn new(stream: Stream, seed: usize, other: usize, is_answered: bool) -> Self {
        let got = Rc::new(Got {
            seed: other,
            bytes: Cell::new(0),
            wrong: RefCell::new(None),
        });
        Self {
            stream: Some(stream),
            seed,
            is_answered,
            wanted: 0,
            sent: 0,
            wants_end: false,
            has_ended: false,
            stopped: None,
            sender: Flag::raised(),
            mode: Mode::Reads,
            got,
            ending: None,
            reader: Flag::raised(),
            left: None,
        }
    }

    pub(super) fn has_stream(&self) -> bool {
        self.stream.is_some()
    }

    pub(super) fn received(&self) -> usize {
        self.got.bytes.get()
    }

    pub(super) fn discards(&self) -> bool {
        matches!(self.mode, Mode::Discards)
    }

    /// Whether it sends what it is given.
    pub(super) fn is_sending(&self) -> bool {
        self.stream.is_some() && self.stopped.is_none() && !self.wants_end
    }

    /// Whether everything that it was given was sent.
    pub(super) fn has_sent_all(&self) -> bool {
        self.sent == self.wanted && self.wants_end == self.has_ended
    }

    /// The first place at which what came is not what was sent.
    pub(super) fn wrong(&self) -> Option<usize> {
        *self.got.wrong.borrow()
    }

    pub(super) fn give(&mut self, bytes: usize) {
        if self.is_sending() {
            self.wanted += bytes;
        }
    }

    pub(super) fn end(&mut self) {
        self.wants_end = true;
    }

    pub(super) fn attach(&mut self) {
        if let (Mode::Reads, Some(stream)) = (&self.mode, &self.stream) {
            let sink = Rc::new(Narrow {
                room: Cell::new(0),
                got: Rc::clone(&self.got),
            });
            stream.attach(Rc::<Narrow>::clone(&sink));
            self.mode = Mode::Sink(sink);
            self.reader.raise();
        }
    }

    pub(super) fn discard(&mut self) {
        if let Some(stream) = &self.stream {
            stream.discard();
            self.mode = Mode::Discards;
        }
    }

    pub(super) fn leave(&mut self, how: Left) {
        let Some(stream) = self.stream.take() else {
            return;
        };
        self.left = Some(how);
        if how == Left::AfterAll {
            stream.reset(ErrorCode::CONNECT_ERROR);
        }
    }

    /// Drops a stream that is over.
    pub(super) fn close(&mut self) {
        self.stream = None;
    }

    /// Sends while it may, and tells the stream's end. Does nothing while it waits to be woken.
    pub(super) fn run_sender(&mut self) {
        let Some(stream) = &self.stream else {
            return;
        };
        let waker = Waker::from(Arc::clone(&self.sender));
        while self.stopped.is_none() && self.sent < self.wanted && self.sender.take() {
            let data: Vec<u8> = (self.sent..self.wanted.min(self.sent + (64 << 10)))
                .map(|place| byte(self.seed, place))
                .collect();
            match stream.poll_send(&mut Context::from_waker(&waker), &[IoSlice::new(&data)]) {
                Poll::Ready(Ok(sent)) => {
                    self.sent += sent;
                    self.sender.raise();
                }
                Poll::Ready(Err(failure)) => self.stopped = Some(failure),
                Poll::Pending => {}
            }
        }
        if self.wants_end && !self.has_ended && self.sent == self.wanted && self.stopped.is_none() {
            stream.finish();
            self.has_ended = true;
        }
    }

    /// Takes at most `most` bytes of what has come. Does nothing while it waits to be woken.
    pub(super) fn run_reader(&mut self, most: usize) {
        if !self.is_answered {
            self.run_answer();
        }
        match &self.mode {
            _ if !self.is_answered => {}
            Mode::Reads => self.read(most),
            Mode::Sink(sink) => {
                sink.room.set(sink.room.get().max(most));
                self.run_sink();
            }
            Mode::Discards => self.run_sink(),
        }
    }

    fn run_answer(&mut self) {
        let (Some(stream), true) = (&self.stream, self.reader.take()) else {
            return;
        };
        let waker = Waker::from(Arc::clone(&self.reader));
        let answered = pin!(stream.answered()).poll(&mut Context::from_waker(&waker));
        match answered {
            Poll::Ready(Ok(200)) => {
                self.is_answered = true;
                self.reader.raise();
            }
            Poll::Ready(Ok(_)) => self.left = Some(Left::AtOnce),
            Poll::Ready(Err(failure)) => self.ending = Some(Ending::Failed(failure)),
            Poll::Pending => return,
        }
        if !self.is_answered {
            self.stream = None;
        }
    }

    fn read(&mut self, most: usize) {
        let Some(stream) = &self.stream else {
            return;
        };
        let waker = Waker::from(Arc::clone(&self.reader));
        let mut left = most;
        while left > 0 && self.ending.is_none() && self.reader.take() {
            let mut buffer = vec![0; left.min(4096)];
            let mut into = ReadBuf::new(&mut buffer);
            match stream.poll_read(&mut Context::from_waker(&waker), &mut into) {
                Poll::Pending => return,
                Poll::Ready(Err(failure)) => self.ending = Some(Ending::Failed(failure)),
                Poll::Ready(Ok(())) if into.filled().is_empty() => {
                    self.ending = Some(Ending::InOrder);
                }
                Poll::Ready(Ok(())) => {
                    self.got.take(into.filled());
                    left -= into.filled().len();
                    self.reader.raise();
                }
            }
        }
    }

    fn run_sink(&mut self) {
        let Some(stream) = &self.stream else {
            return;
        };
        let waker = Waker::from(Arc::clone(&self.reader));
        while self.ending.is_none() && self.reader.take() {
            match stream.poll_delivery(&mut Context::from_waker(&waker)) {
                Poll::Pending => return,
                Poll::Ready(Delivery::Ended) => self.ending = Some(Ending::InOrder),
                Poll::Ready(Delivery::Failed(failure)) => {
                    self.ending = Some(Ending::Failed(failure));
                }
                // Nothing more is to be known.
                Poll::Ready(Delivery::SinkFailed(_)) => return,
                Poll::Ready(Delivery::Blocked) => {
                    // It waits for room in the sink, not for the tunnel.
                    self.reader.raise();
                    let before = self.got.bytes.get();
                    stream.deliver();
                    if self.got.bytes.get() == before {
                        return;
                    }
                }
            }
        }
    }
}
