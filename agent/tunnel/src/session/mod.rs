//! One HTTP/2 connection of a tunnel: its streams, its windows and its settings. Bytes go in, bytes come out;
//! it does no input or output of its own.
//!
//! The connection's own window is as large as can be, and is raised as soon as bytes come in. What bounds a
//! tunnel's memory are the windows of its streams, which the pod's account is charged for. So a stream
//! that is not read holds up no other.

mod control;
mod heads;
mod outgoing;
mod receive;
mod stream;

use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ambit_account::{AccountExhausted, PodAccount};
use bytes::BytesMut;
use tokio::io::ReadBuf;
use tokio::time::Instant;

use crate::failure::{OpenError, StreamFailure, TunnelFailure};
use crate::flood::FloodBudget;
use crate::frame::{
    DEFAULT_FRAME, DEFAULT_WINDOW, ENABLE_PUSH, END_HEADERS, END_STREAM, ErrorCode, FRAME_HEAD,
    FrameHead, FrameKind, INITIAL_WINDOW_SIZE, LARGEST_WINDOW, MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE, PREFACE, StreamId, put_frame, put_go_away, put_reset,
    put_settings, put_window_update,
};
use crate::head::{LARGEST_HEAD, RequestHead};
use crate::hpack::{Decoder, write_connect, write_status};
use outgoing::Outgoing;
use receive::FrameReader;
pub(crate) use stream::FIRST_WINDOW;
use stream::{Company, Head, Line, Received, Receiving, Sent, Stream};
pub use stream::{Delivery, Sink};

/// The most streams that a peer may have on one connection.
pub(crate) const MOST_STREAMS: usize = 1024;

/// The payload that a peer may put into one frame.
const LARGEST_FRAME: usize = 256 << 10;

/// When the connection's window has been used up to here, the peer is told that it is open again.
const RAISE_AT: u32 = 1 << 30;

/// Marks the PING that goes with the first GOAWAY.
const LEAVING_PING: [u8; 8] = *b"leaving.";

/// Which side of the connection this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Client,
    Server,
}

/// What a peer has opened.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A stream with a request to be answered.
    Request(StreamId, RequestHead),
    /// A stream that there was no memory for. It was answered with 503.
    NoMemory(AccountExhausted),
}

/// A connection's course.
#[derive(Clone, Debug)]
enum Life {
    Open,
    /// This side said that it leaves, and waits until the peer has heard of it.
    Announced,
    /// No new streams come; those that are open go on.
    Leaving,
    Ended(TunnelFailure),
}

/// What the peer's settings allow.
#[derive(Debug)]
struct PeerSettings {
    initial_window: u32,
    largest_frame: usize,
    most_streams: usize,
}

/// Whether the peer knows this side's settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SettingsState {
    Sent,
    Acknowledged,
}

/// One HTTP/2 connection.
pub(crate) struct Session {
    role: Role,
    memory: PodAccount,
    streams: HashMap<StreamId, Stream>,
    /// The last stream that the client has opened.
    last: StreamId,
    arrivals: VecDeque<Arrival>,
    peer: PeerSettings,
    settings: SettingsState,
    /// What may be sent on all streams.
    window: i64,
    /// What has come since the peer was last told that the connection's window is open.
    received: u32,
    outgoing: Outgoing,
    reader: FrameReader,
    decoder: Decoder,
    flood: FloodBudget,
    life: Life,
    /// Whether the peer has said that it takes no new streams.
    peer_leaves: bool,
    /// Streams that have received payload in this pass.
    touched: Vec<StreamId>,
    driver: Option<Waker>,
    /// When the last stream was opened or forgotten.
    used: Instant,
}

impl Session {
    pub(crate) fn new(role: Role, memory: PodAccount) -> Self {
        let mut outgoing = Outgoing::new();
        if role == Role::Client {
            outgoing.urgent.extend_from_slice(PREFACE);
        }
        let mut settings = vec![
            (INITIAL_WINDOW_SIZE, FIRST_WINDOW as u32),
            (MAX_FRAME_SIZE, LARGEST_FRAME as u32),
            (MAX_HEADER_LIST_SIZE, LARGEST_HEAD as u32),
        ];
        settings.push(match role {
            Role::Client => (ENABLE_PUSH, 0),
            Role::Server => (MAX_CONCURRENT_STREAMS, MOST_STREAMS as u32),
        });
        put_settings(&mut outgoing.urgent, &settings);
        let raise = LARGEST_WINDOW - DEFAULT_WINDOW;
        put_window_update(&mut outgoing.urgent, StreamId::CONNECTION, raise);
        Self {
            role,
            memory,
            streams: HashMap::new(),
            last: StreamId(0),
            arrivals: VecDeque::new(),
            peer: PeerSettings {
                initial_window: DEFAULT_WINDOW,
                largest_frame: DEFAULT_FRAME,
                most_streams: usize::MAX,
            },
            settings: SettingsState::Sent,
            window: i64::from(DEFAULT_WINDOW),
            received: 0,
            outgoing,
            reader: FrameReader::new(role),
            decoder: Decoder::default(),
            flood: FloodBudget::new(Instant::now().into_std()),
            life: Life::Open,
            peer_leaves: false,
            touched: Vec::new(),
            driver: None,
            used: Instant::now(),
        }
    }

    /// The number of streams, with those that are over but not delivered.
    pub(crate) fn streams(&self) -> usize {
        self.streams.len()
    }

    /// How long there has been no stream; zero while there is any.
    pub(crate) fn idle_for(&self) -> Duration {
        if self.streams.is_empty() {
            self.used.elapsed()
        } else {
            Duration::ZERO
        }
    }

    /// Whether a stream may be opened at all.
    pub(crate) fn takes_streams(&self) -> bool {
        matches!(self.life, Life::Open)
            && !self.peer_leaves
            && self.last.0 < StreamId::LARGEST.0 - 2
    }

    /// Whether the peer allows one more stream, and has room for its payload.
    pub(crate) fn has_room(&self) -> bool {
        self.streams.len() < self.peer.most_streams && self.window >= DEFAULT_FRAME as i64
    }

    /// Why the connection has ended, if it has.
    pub(crate) fn failure(&self) -> Option<&TunnelFailure> {
        match &self.life {
            Life::Ended(failure) => Some(failure),
            Life::Open | Life::Announced | Life::Leaving => None,
        }
    }

    /// Whether the connection is no longer needed: it takes no streams, and has none.
    pub(crate) fn is_done(&self) -> bool {
        let takes_none = self.peer_leaves || matches!(self.life, Life::Leaving | Life::Ended(_));
        takes_none && self.streams.is_empty() && self.arrivals.is_empty()
    }

    /// Opens a stream by a CONNECT.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) fn open(&mut self, authority: &str, forwarded: &str) -> Result<StreamId, OpenError> {
        if !self.takes_streams() || self.streams.len() >= self.peer.most_streams {
            return Err(OpenError::NotOpen);
        }
        let charge = self.memory.take(FIRST_WINDOW)?;
        let id = match self.last {
            StreamId(0) => StreamId(1),
            StreamId(last) => StreamId(last + 2),
        };
        self.last = id;
        self.used = Instant::now();
        let mut block = BytesMut::new();
        write_connect(&mut block, authority, forwarded);
        let out = &mut self.outgoing.urgent;
        put_frame(out, FrameKind::Headers, END_HEADERS, id, &block);
        let stream = Stream::new(
            Head::Awaited,
            FIRST_WINDOW,
            self.peer.initial_window,
            charge,
        );
        self.streams.insert(id, stream);
        self.wake_driver();
        Ok(id)
    }

    /// Returns the next request, or registers the caller to be woken.
    pub(crate) fn next_arrival(&mut self) -> Option<Arrival> {
        let arrival = self.arrivals.pop_front()?;
        if let Arrival::Request(id, _) = &arrival
            && let Some(stream) = self.streams.get_mut(id)
        {
            stream.head = Head::Taken;
        }
        Some(arrival)
    }

    /// Answers a request.
    pub(crate) fn answer(&mut self, id: StreamId, status: u16) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.head = Head::Answered;
        if stream.sending.state == Sent::Reset || stream.sending.stopped.is_some() {
            return;
        }
        let flags = if status == 200 {
            END_HEADERS
        } else {
            END_HEADERS | END_STREAM
        };
        if status != 200 {
            stream.sending.state = Sent::Ended;
        }
        self.put_status(id, status, flags);
        self.wake_driver();
    }

    fn put_status(&mut self, id: StreamId, status: u16, flags: u8) {
        let mut block = BytesMut::new();
        write_status(&mut block, status);
        put_frame(
            &mut self.outgoing.urgent,
            FrameKind::Headers,
            flags,
            id,
            &block,
        );
    }

    /// Returns the status with which the peer answered.
    pub(crate) fn poll_answer(
        &mut self,
        id: StreamId,
        context: &mut Context<'_>,
    ) -> Poll<Result<u16, StreamFailure>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(TunnelFailure::GivenUp.into()));
        };
        if let Head::Answer(status) = stream.head {
            return Poll::Ready(Ok(status));
        }
        if let Received::Failed(failure) = &stream.receiving.state {
            return Poll::Ready(Err(failure.clone()));
        }
        set_waker(&mut stream.receiving.reader, context);
        Poll::Pending
    }

    /// Returns how many bytes the stream may send now.
    ///
    /// # Errors
    /// If the stream is over.
    pub(crate) fn poll_room(
        &mut self,
        id: StreamId,
        context: &mut Context<'_>,
    ) -> Poll<Result<usize, StreamFailure>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(TunnelFailure::GivenUp.into()));
        };
        if let Some(failure) = &stream.sending.stopped {
            return Poll::Ready(Err(failure.clone()));
        }
        if stream.sending.state != Sent::Open {
            return Poll::Ready(Err(TunnelFailure::GivenUp.into()));
        }
        set_waker(&mut stream.sending.writer, context);
        let sending = &mut stream.sending;
        if sending.line == Line::Turn {
            return Poll::Pending;
        }
        if sending.window <= 0 {
            sending.line = Line::Window;
            return Poll::Pending;
        }
        let slice = self.outgoing.slice().min(self.peer.largest_frame);
        let window = usize::try_from(self.window.min(sending.window)).unwrap_or(0);
        if slice == 0 || window == 0 {
            sending.line = Line::Turn;
            self.outgoing.queue(id, sending.has_backlog);
            return Poll::Pending;
        }
        sending.line = Line::Free;
        Poll::Ready(Ok(slice.min(window)))
    }

    /// Resolves when the peer takes nothing any more.
    pub(crate) fn poll_stopped(
        &mut self,
        id: StreamId,
        context: &mut Context<'_>,
    ) -> Poll<StreamFailure> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(TunnelFailure::GivenUp.into());
        };
        if let Some(failure) = &stream.sending.stopped {
            return Poll::Ready(failure.clone());
        }
        set_waker(&mut stream.sending.writer, context);
        Poll::Pending
    }

    /// Resolves when the stream has failed, and what came before has been read or need not be.
    pub(crate) fn poll_broken(
        &mut self,
        id: StreamId,
        context: &mut Context<'_>,
    ) -> Poll<StreamFailure> {
        let waits = self
            .receiving(id)
            .is_some_and(|receiving| receiving.is_waiting());
        match self.poll_stopped(id, context) {
            Poll::Ready(failure) if waits && !failure.overtakes() => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    set_waker(&mut stream.sending.writer, context);
                }
                Poll::Pending
            }
            polled => polled,
        }
    }

    /// Reads what has been received.
    pub(crate) fn read(&mut self, id: StreamId, into: &mut ReadBuf<'_>) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.receiving.read(into);
            if stream.sending.stopped.is_some() && !stream.receiving.is_waiting() {
                stream.wake();
            }
        }
        self.announce(id);
    }

    /// Sends payload: `put` appends at most `most` bytes, which [`Session::poll_room`] allowed, and returns how
    /// many. If it fails, nothing is sent.
    pub(crate) fn send<E>(
        &mut self,
        id: StreamId,
        most: usize,
        put: impl FnOnce(&mut BytesMut) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let out = self.outgoing.room_for(FRAME_HEAD + most);
        let start = out.len();
        out.extend_from_slice(&[0; FRAME_HEAD]);
        let length = match put(out) {
            Ok(length) if length > 0 => length,
            nothing => {
                out.truncate(start);
                return nothing;
            }
        };
        let head = FrameHead {
            length,
            kind: FrameKind::Data,
            flags: 0,
            stream: id,
        };
        out[start..start + FRAME_HEAD].copy_from_slice(&head.write());
        self.window -= length as i64;
        self.flood.carried(length);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.sending.window -= length as i64;
            stream.sending.has_backlog = length == most;
            if let Some(increment) = stream.take_increment(Company::Payload) {
                put_window_update(&mut self.outgoing.urgent, id, increment);
            }
        }
        self.wake_driver();
        Ok(length)
    }

    /// Ends this side of a stream, after all that was sent.
    pub(crate) fn finish(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.sending.state != Sent::Open {
            return;
        }
        stream.sending.state = Sent::Ended;
        let out = &mut self.outgoing.ordered;
        put_frame(out, FrameKind::Data, END_STREAM, id, &[]);
        self.wake_driver();
    }

    /// Resets a stream, after all that was sent.
    pub(crate) fn reset(&mut self, id: StreamId, code: ErrorCode) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let is_over = stream.is_over();
        stream.sending.state = Sent::Reset;
        if !is_over {
            put_reset(&mut self.outgoing.ordered, id, code);
            self.wake_driver();
        }
    }

    /// Forgets a stream whose owner is gone. It is reset if it is not over.
    pub(crate) fn forget(&mut self, id: StreamId, code: ErrorCode) {
        self.reset(id, code);
        if let Some(mut stream) = self.streams.remove(&id) {
            self.used = Instant::now();
            let stood_in_line = stream.sending.line == Line::Turn;
            stream.wake();
            // It may have been called up, and its turn would be lost.
            if stood_in_line || self.outgoing.has_queue() || self.is_done() {
                self.wake_driver();
            }
        }
    }

    /// What a stream has received.
    pub(crate) fn receiving(&mut self, id: StreamId) -> Option<&mut Receiving> {
        self.streams
            .get_mut(&id)
            .map(|stream| &mut stream.receiving)
    }

    /// Tells the peer what it may send again, after something was delivered.
    pub(crate) fn announce(&mut self, id: StreamId) {
        let stream = self.streams.get_mut(&id);
        if let Some(increment) = stream.and_then(|stream| stream.take_increment(Company::Alone)) {
            put_window_update(&mut self.outgoing.urgent, id, increment);
            self.wake_driver();
        }
    }

    /// Writes what came in this pass to the sinks, and wakes readers.
    pub(crate) fn deliver(&mut self) {
        while let Some(id) = self.touched.pop() {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.deliver();
                self.announce(id);
            }
        }
    }

    /// Says that this side takes no new streams. Those that the peer is opening at this moment are still taken.
    pub(crate) fn leave(&mut self) {
        if !matches!(self.life, Life::Open) {
            return;
        }
        let out = &mut self.outgoing.urgent;
        self.life = match self.role {
            Role::Client => {
                put_go_away(out, StreamId::CONNECTION, ErrorCode::NO_ERROR);
                Life::Leaving
            }
            Role::Server => {
                put_go_away(out, StreamId::LARGEST, ErrorCode::NO_ERROR);
                put_frame(out, FrameKind::Ping, 0, StreamId::CONNECTION, &LEAVING_PING);
                Life::Announced
            }
        };
        self.wake_driver();
    }

    /// The peer has heard that this side leaves.
    fn left(&mut self) {
        if matches!(self.life, Life::Announced) {
            self.life = Life::Leaving;
            put_go_away(&mut self.outgoing.urgent, self.last, ErrorCode::NO_ERROR);
            self.wake_driver();
        }
    }

    pub(crate) fn ping(&mut self) {
        let out = &mut self.outgoing.urgent;
        put_frame(out, FrameKind::Ping, 0, StreamId::CONNECTION, &[0; 8]);
    }

    /// Ends the connection, with all of its streams. The peer is told why if it can still be told.
    pub(crate) fn end(&mut self, failure: &TunnelFailure) {
        if let Life::Ended(_) = self.life {
            return;
        }
        self.life = Life::Ended(failure.clone());
        let last = if self.role == Role::Server {
            self.last
        } else {
            StreamId(0)
        };
        put_go_away(&mut self.outgoing.urgent, last, failure.code());
        for stream in self.streams.values_mut() {
            if !stream.is_over() {
                stream.fail(failure.clone().into());
            }
            stream.wake();
        }
        self.wake_driver();
    }

    /// What waits to be sent.
    pub(crate) fn outgoing(&mut self) -> &mut Outgoing {
        &mut self.outgoing
    }

    /// Calls up the streams whose turn it is. Returns whether others still stand in line.
    pub(crate) fn call_up(&mut self) -> bool {
        if self.window <= 0 {
            return false;
        }
        let mut turns = self.outgoing.turns();
        while turns > 0
            && let Some(id) = self.outgoing.next()
        {
            if let Some(stream) = self.streams.get_mut(&id)
                && stream.sending.line == Line::Turn
            {
                stream.sending.line = Line::Free;
                turns -= 1;
                if let Some(writer) = stream.sending.writer.take() {
                    writer.wake();
                }
            }
        }
        self.outgoing.has_queue()
    }

    pub(crate) fn register_driver(&mut self, context: &Context<'_>) {
        match &mut self.driver {
            Some(waker) => waker.clone_from(context.waker()),
            None => self.driver = Some(context.waker().clone()),
        }
    }

    fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }
}

pub(crate) fn set_waker(place: &mut Option<Waker>, context: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(context.waker()),
        None => *place = Some(context.waker().clone()),
    }
}
