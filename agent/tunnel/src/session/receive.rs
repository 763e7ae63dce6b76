//! What a peer sends: frames out of bytes, and what each one changes.

use std::time::Instant;

use bytes::BytesMut;

use super::stream::{FIRST_WINDOW, Head, Line, Received, Sent, Stream};
use super::{
    Arrival, LARGEST_FRAME, LEAVING_PING, MOST_STREAMS, RAISE_AT, Role, Session, SettingsState,
};
use crate::failure::{StreamFailure, TunnelFailure};
use crate::flood::{Flooded, Nuisance};
use crate::frame::{
    ACK, DEFAULT_FRAME, DEFAULT_WINDOW, END_HEADERS, END_STREAM, ErrorCode, FRAME_HEAD, FrameHead,
    FrameKind, INITIAL_WINDOW_SIZE, LARGEST_WINDOW, MAX_CONCURRENT_STREAMS, MAX_FRAME_SIZE, PADDED,
    PREFACE, PRIORITY, StreamId, put_frame, put_reset, put_window_update,
};
use crate::head::{HeadReader, LARGEST_HEAD, MalformedHead};
use crate::session::outgoing::MOST_URGENT;

/// The most bytes of a frame other than DATA.
const LARGEST_CONTROL: usize = LARGEST_HEAD;

/// The most frames of one header block. A block that is cut into more is an attack (CVE-2024-27316).
const MOST_CONTINUATIONS: usize = 16;

/// Takes bytes in pieces of any size.
#[derive(Debug)]
pub(super) struct FrameReader {
    place: Place,
    /// A header block that is not complete.
    block: Option<HeaderBlock>,
    has_settings: bool,
}

/// Where in the stream of bytes the reader is.
#[derive(Debug)]
enum Place {
    /// In a client's preface, after this many bytes.
    Preface(usize),
    /// In the head of a frame.
    Head([u8; FRAME_HEAD], usize),
    /// In the payload of a frame that is taken as a whole.
    Control(FrameHead, BytesMut),
    /// In a DATA frame.
    Data(DataFrame),
    /// In a frame that is skipped.
    Skip(usize),
}

/// What is left of a DATA frame.
#[derive(Clone, Copy, Debug)]
struct DataFrame {
    stream: StreamId,
    payload: usize,
    padding: usize,
    is_last: bool,
    /// Whether the length of the padding comes next.
    is_padded: bool,
}

/// The fragments of a head.
#[derive(Debug)]
struct HeaderBlock {
    stream: StreamId,
    is_last: bool,
    fragments: BytesMut,
    frames: usize,
}

impl FrameReader {
    pub(super) fn new(role: Role) -> Self {
        let place = match role {
            Role::Server => Place::Preface(0),
            Role::Client => Place::Head([0; FRAME_HEAD], 0),
        };
        Self {
            place,
            block: None,
            has_settings: false,
        }
    }
}

impl From<Flooded> for TunnelFailure {
    fn from(_: Flooded) -> Self {
        Self::Flooded
    }
}

impl Session {
    /// Takes in bytes from the peer. [`Session::deliver`] has to follow.
    ///
    /// # Errors
    /// [`TunnelFailure`] that ends the connection.
    pub(crate) fn receive(&mut self, mut input: &[u8]) -> Result<(), TunnelFailure> {
        while !input.is_empty() {
            let place = std::mem::replace(&mut self.reader.place, Place::Skip(0));
            let (next, rest) = self.step(place, input)?;
            self.reader.place = next;
            input = rest;
        }
        Ok(())
    }

    /// Takes some of `input`, which is not empty, and returns the rest.
    fn step<'a>(
        &mut self,
        place: Place,
        input: &'a [u8],
    ) -> Result<(Place, &'a [u8]), TunnelFailure> {
        match place {
            Place::Preface(done) => {
                let expected = &PREFACE[done..];
                let (now, rest) = input.split_at(expected.len().min(input.len()));
                if now != &expected[..now.len()] {
                    return Err(TunnelFailure::protocol(
                        "it does not begin with the preface",
                    ));
                }
                Ok(match done + now.len() {
                    complete if complete == PREFACE.len() => (next_head(), rest),
                    done => (Place::Preface(done), rest),
                })
            }
            Place::Head(mut bytes, done) => {
                let now = (FRAME_HEAD - done).min(input.len());
                bytes[done..done + now].copy_from_slice(&input[..now]);
                let rest = &input[now..];
                if done + now < FRAME_HEAD {
                    return Ok((Place::Head(bytes, done + now), rest));
                }
                self.begin(FrameHead::read(bytes), rest)
            }
            Place::Control(head, mut payload) => {
                let now = (head.length - payload.len()).min(input.len());
                payload.extend_from_slice(&input[..now]);
                if payload.len() < head.length {
                    return Ok((Place::Control(head, payload), &input[now..]));
                }
                self.control(head, &payload)?;
                Ok((next_head(), &input[now..]))
            }
            Place::Data(frame) => self.data(frame, input),
            Place::Skip(left) => {
                let now = left.min(input.len());
                let next = if left == now {
                    next_head()
                } else {
                    Place::Skip(left - now)
                };
                Ok((next, &input[now..]))
            }
        }
    }

    /// Begins a frame.
    fn begin<'a>(
        &mut self,
        head: FrameHead,
        rest: &'a [u8],
    ) -> Result<(Place, &'a [u8]), TunnelFailure> {
        if head.length > LARGEST_FRAME {
            return Err(TunnelFailure::frame_size());
        }
        if !self.reader.has_settings && (head.kind != FrameKind::Settings || head.has(ACK)) {
            return Err(TunnelFailure::protocol("SETTINGS have to come first"));
        }
        if let Some(block) = &self.reader.block
            && (head.kind != FrameKind::Continuation || head.stream != block.stream)
        {
            return Err(TunnelFailure::protocol("a header block is interrupted"));
        }
        match head.kind {
            FrameKind::Data => self.begin_data(head, rest),
            FrameKind::Unknown => {
                self.flood.charge(Nuisance::Trifle, Instant::now())?;
                Ok(after(Place::Skip(head.length), head.length == 0, rest))
            }
            _ if head.length > LARGEST_CONTROL => Err(TunnelFailure::Protocol {
                what: "a frame other than DATA is too long",
                code: ErrorCode::ENHANCE_YOUR_CALM,
            }),
            _ => match rest.split_at_checked(head.length) {
                // Mostly all of it is here.
                Some((payload, rest)) => {
                    self.control(head, payload)?;
                    Ok((next_head(), rest))
                }
                None => Ok((Place::Control(head, BytesMut::new()), rest)),
            },
        }
    }

    fn begin_data<'a>(
        &mut self,
        head: FrameHead,
        rest: &'a [u8],
    ) -> Result<(Place, &'a [u8]), TunnelFailure> {
        self.ensure_not_idle(head.stream)?;
        let is_padded = head.has(PADDED);
        if is_padded && head.length == 0 {
            return Err(TunnelFailure::frame_size());
        }
        let is_last = head.has(END_STREAM);
        if head.length == 0 && !is_last {
            self.flood.charge(Nuisance::Trifle, Instant::now())?;
        }
        self.received += head.length as u32;
        if self.received >= RAISE_AT {
            let increment = std::mem::take(&mut self.received);
            put_window_update(&mut self.outgoing.urgent, StreamId::CONNECTION, increment);
        }
        let is_open = |stream: &Stream| matches!(stream.receiving.state, Received::Open);
        match self.streams.get(&head.stream) {
            Some(stream) if is_open(stream) => {}
            Some(stream) if matches!(stream.receiving.state, Received::Ended) => {
                return Err(TunnelFailure::Protocol {
                    what: "DATA after the end of a stream",
                    code: ErrorCode::STREAM_CLOSED,
                });
            }
            // A stream that this side has refused or reset: the peer may not have heard of it yet.
            Some(_) | None => {}
        }
        let frame = DataFrame {
            stream: head.stream,
            payload: head.length,
            padding: 0,
            is_last,
            is_padded,
        };
        if head.length == 0 {
            self.end_data(frame);
            return Ok((next_head(), rest));
        }
        Ok((Place::Data(frame), rest))
    }

    fn data<'a>(
        &mut self,
        mut frame: DataFrame,
        input: &'a [u8],
    ) -> Result<(Place, &'a [u8]), TunnelFailure> {
        let mut rest = input;
        if frame.is_padded {
            let (&padding, after) = rest.split_first().ok_or(TunnelFailure::frame_size())?;
            frame.is_padded = false;
            frame.padding = usize::from(padding);
            frame.payload =
                (frame.payload - 1)
                    .checked_sub(frame.padding)
                    .ok_or(TunnelFailure::protocol(
                        "the padding is longer than the frame",
                    ))?;
            self.take_in(frame.stream, &[], 1)?;
            rest = after;
        }
        let (payload, after) = rest.split_at(frame.payload.min(rest.len()));
        frame.payload -= payload.len();
        let padding = frame.padding.min(after.len());
        if frame.payload == 0 {
            frame.padding -= padding;
            rest = &after[padding..];
            self.take_in(frame.stream, payload, padding)?;
        } else {
            rest = after;
            self.take_in(frame.stream, payload, 0)?;
        }
        if frame.payload == 0 && frame.padding == 0 {
            self.end_data(frame);
            return Ok((next_head(), rest));
        }
        Ok((Place::Data(frame), rest))
    }

    fn take_in(
        &mut self,
        id: StreamId,
        payload: &[u8],
        padding: usize,
    ) -> Result<(), TunnelFailure> {
        if let Some(stream) = self.streams.get_mut(&id)
            && matches!(stream.receiving.state, Received::Open)
        {
            self.flood.carried(payload.len());
            stream.receive(payload, padding)?;
            self.touch(id);
        }
        Ok(())
    }

    fn end_data(&mut self, frame: DataFrame) {
        if frame.is_last {
            self.end_receiving(frame.stream);
        }
    }

    fn end_receiving(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && matches!(stream.receiving.state, Received::Open)
        {
            stream.receiving.state = Received::Ended;
            self.touch(id);
        }
    }

    fn touch(&mut self, id: StreamId) {
        if self.touched.last() != Some(&id) {
            self.touched.push(id);
        }
    }

    fn control(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), TunnelFailure> {
        match head.kind {
            FrameKind::Headers => self.headers(head, payload),
            FrameKind::Continuation => self.continuation(head, payload),
            FrameKind::Settings => self.settings(head, payload),
            FrameKind::Ping => self.pinged(head, payload),
            FrameKind::WindowUpdate => self.window_update(head, payload),
            FrameKind::ResetStream => self.reset_by_peer(head, payload),
            FrameKind::GoAway => self.go_away(head, payload),
            FrameKind::Priority => {
                if payload.len() != 5 {
                    return Err(TunnelFailure::frame_size());
                }
                if head.stream == StreamId::CONNECTION {
                    return Err(TunnelFailure::protocol("PRIORITY without a stream"));
                }
                Ok(self.flood.charge(Nuisance::Trifle, Instant::now())?)
            }
            FrameKind::PushPromise => Err(TunnelFailure::protocol("PUSH_PROMISE is not allowed")),
            FrameKind::Data | FrameKind::Unknown => Ok(()),
        }
    }

    fn headers(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), TunnelFailure> {
        let mut fragment = payload;
        let mut padding = 0;
        if head.has(PADDED) {
            let (&length, rest) = fragment.split_first().ok_or(TunnelFailure::frame_size())?;
            (padding, fragment) = (usize::from(length), rest);
        }
        if head.has(PRIORITY) {
            let (_, rest) = fragment
                .split_at_checked(5)
                .ok_or(TunnelFailure::frame_size())?;
            fragment = rest;
        }
        let length = fragment.len().checked_sub(padding);
        let length = length.ok_or(TunnelFailure::protocol(
            "the padding is longer than the frame",
        ))?;
        let fragment = &fragment[..length];
        if head.has(END_HEADERS) {
            return self.head(head.stream, head.has(END_STREAM), fragment);
        }
        self.reader.block = Some(HeaderBlock {
            stream: head.stream,
            is_last: head.has(END_STREAM),
            fragments: BytesMut::from(fragment),
            frames: 1,
        });
        Ok(())
    }

    fn continuation(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), TunnelFailure> {
        let Some(mut block) = self.reader.block.take() else {
            return Err(TunnelFailure::protocol("CONTINUATION without HEADERS"));
        };
        block.fragments.extend_from_slice(payload);
        block.frames += 1;
        if block.fragments.len() > LARGEST_CONTROL || block.frames > MOST_CONTINUATIONS {
            return Err(TunnelFailure::Protocol {
                what: "a header block is too long",
                code: ErrorCode::ENHANCE_YOUR_CALM,
            });
        }
        if head.has(END_HEADERS) {
            return self.head(block.stream, block.is_last, &block.fragments);
        }
        self.reader.block = Some(block);
        Ok(())
    }

    /// A complete head.
    fn head(&mut self, id: StreamId, is_last: bool, block: &[u8]) -> Result<(), TunnelFailure> {
        // Decoded in any case: the next block depends on it.
        let mut reader = HeadReader::default();
        self.decoder
            .decode(block, |name, value| reader.field(name, value))?;
        if !id.is_clients() {
            return Err(TunnelFailure::protocol(
                "a head for a stream that no client opens",
            ));
        }
        match self.role {
            Role::Client => self.answered(id, is_last, reader),
            Role::Server if id > self.last => self.opened(id, is_last, reader),
            Role::Server => self.trailers(id, is_last),
        }
    }

    /// An answer, or its trailers.
    fn answered(
        &mut self,
        id: StreamId,
        is_last: bool,
        head: HeadReader,
    ) -> Result<(), TunnelFailure> {
        self.ensure_not_idle(id)?;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(self.flood.charge(Nuisance::Trifle, Instant::now())?);
        };
        if let Head::Answer(_) = stream.head {
            return self.trailers(id, is_last);
        }
        match head.status() {
            // Interim answers.
            Ok(100..=199) if !is_last => {
                return Ok(self.flood.charge(Nuisance::Trifle, Instant::now())?);
            }
            Ok(status) => {
                stream.head = Head::Answer(status);
                stream.receiving.wake();
                if is_last {
                    self.end_receiving(id);
                }
            }
            Err(_) => self.refuse_stream(id, ErrorCode::PROTOCOL_ERROR),
        }
        Ok(())
    }

    fn trailers(&mut self, id: StreamId, is_last: bool) -> Result<(), TunnelFailure> {
        self.ensure_not_idle(id)?;
        let Some(stream) = self.streams.get(&id) else {
            return Ok(self.flood.charge(Nuisance::Trifle, Instant::now())?);
        };
        if !matches!(stream.receiving.state, Received::Open) {
            return Err(TunnelFailure::Protocol {
                what: "a head after the end of a stream",
                code: ErrorCode::STREAM_CLOSED,
            });
        }
        if !is_last {
            self.refuse_stream(id, ErrorCode::PROTOCOL_ERROR);
        }
        self.end_receiving(id);
        Ok(())
    }

    /// A stream that the peer opens.
    fn opened(
        &mut self,
        id: StreamId,
        is_last: bool,
        head: HeadReader,
    ) -> Result<(), TunnelFailure> {
        if matches!(self.life, super::Life::Leaving | super::Life::Ended(_)) {
            // The peer was told that nothing after the last stream is looked at.
            return Ok(self.flood.charge(Nuisance::Trifle, Instant::now())?);
        }
        self.last = id;
        let request = match head.request() {
            Ok(request) => request,
            Err(MalformedHead::Form) => {
                self.flood.charge(Nuisance::WastedStream, Instant::now())?;
                put_reset(&mut self.outgoing.ordered, id, ErrorCode::PROTOCOL_ERROR);
                return Ok(());
            }
            Err(MalformedHead::TooLong) => {
                self.flood.charge(Nuisance::WastedStream, Instant::now())?;
                self.put_status(id, 431, END_HEADERS | END_STREAM);
                return Ok(());
            }
        };
        if self.streams.len() >= MOST_STREAMS {
            self.flood.charge(Nuisance::WastedStream, Instant::now())?;
            put_reset(&mut self.outgoing.ordered, id, ErrorCode::REFUSED_STREAM);
            return Ok(());
        }
        let window = match self.settings {
            SettingsState::Acknowledged => FIRST_WINDOW,
            SettingsState::Sent => DEFAULT_WINDOW as usize,
        };
        let charge = match self.memory.take(window) {
            Ok(charge) => charge,
            Err(exhausted) => {
                self.flood.charge(Nuisance::WastedStream, Instant::now())?;
                self.put_status(id, 503, END_HEADERS | END_STREAM);
                self.arrivals.push_back(Arrival::NoMemory(exhausted));
                return Ok(());
            }
        };
        let mut stream = Stream::new(Head::Untaken, window, self.peer.initial_window, charge);
        if is_last {
            stream.receiving.state = Received::Ended;
        }
        self.streams.insert(id, stream);
        self.arrivals.push_back(Arrival::Request(id, request));
        Ok(())
    }

    /// Resets a stream because of what the peer sent on it.
    fn refuse_stream(&mut self, id: StreamId, code: ErrorCode) {
        if let Some(stream) = self.streams.get_mut(&id) {
            put_reset(&mut self.outgoing.ordered, id, code);
            stream.sending.state = Sent::Reset;
            stream.fail(StreamFailure::Reset(code));
        }
    }

    fn settings(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), TunnelFailure> {
        if head.stream != StreamId::CONNECTION {
            return Err(TunnelFailure::protocol("SETTINGS of a stream"));
        }
        if head.has(ACK) {
            if !payload.is_empty() {
                return Err(TunnelFailure::frame_size());
            }
            return self.settings_acknowledged();
        }
        if !payload.len().is_multiple_of(6) {
            return Err(TunnelFailure::frame_size());
        }
        if std::mem::replace(&mut self.reader.has_settings, true) {
            self.flood.charge(Nuisance::Settings, Instant::now())?;
        }
        for setting in payload.chunks_exact(6) {
            let name = u16::from_be_bytes([setting[0], setting[1]]);
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            self.set(name, value)?;
        }
        self.put_answer(FrameKind::Settings, &[])
    }

    fn set(&mut self, name: u16, value: u32) -> Result<(), TunnelFailure> {
        match name {
            INITIAL_WINDOW_SIZE => {
                if value > LARGEST_WINDOW {
                    return Err(TunnelFailure::flow_control());
                }
                let change = i64::from(value) - i64::from(self.peer.initial_window);
                self.peer.initial_window = value;
                for stream in self.streams.values_mut() {
                    raise(&mut stream.sending.window, change)?;
                    if stream.sending.line == Line::Window && stream.sending.window > 0 {
                        stream.wake();
                    }
                }
            }
            MAX_FRAME_SIZE => {
                let value = value as usize;
                if !(DEFAULT_FRAME..1 << 24).contains(&value) {
                    return Err(TunnelFailure::protocol("a frame size that is not allowed"));
                }
                self.peer.largest_frame = value;
            }
            MAX_CONCURRENT_STREAMS => self.peer.most_streams = value as usize,
            _ => {}
        }
        Ok(())
    }

    fn settings_acknowledged(&mut self) -> Result<(), TunnelFailure> {
        if self.settings == SettingsState::Acknowledged {
            return Ok(self.flood.charge(Nuisance::Trifle, Instant::now())?);
        }
        self.settings = SettingsState::Acknowledged;
        if self.role == Role::Server {
            let excess = DEFAULT_WINDOW as usize - FIRST_WINDOW;
            for stream in self.streams.values_mut() {
                stream.forget_default_window(excess);
            }
        }
        Ok(())
    }

    fn pinged(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), TunnelFailure> {
        if head.stream != StreamId::CONNECTION {
            return Err(TunnelFailure::protocol("PING of a stream"));
        }
        if payload.len() != 8 {
            return Err(TunnelFailure::frame_size());
        }
        self.flood.charge(Nuisance::Trifle, Instant::now())?;
        if !head.has(ACK) {
            return self.put_answer(FrameKind::Ping, payload);
        }
        if payload == LEAVING_PING {
            self.left();
        }
        Ok(())
    }

    /// Answers a SETTINGS or a PING.
    fn put_answer(&mut self, kind: FrameKind, payload: &[u8]) -> Result<(), TunnelFailure> {
        if self.outgoing.urgent.len() > MOST_URGENT {
            return Err(TunnelFailure::Flooded);
        }
        let out = &mut self.outgoing.urgent;
        put_frame(out, kind, ACK, StreamId::CONNECTION, payload);
        Ok(())
    }

    fn window_update(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), TunnelFailure> {
        let increment = i64::from(u32_of(payload)? & LARGEST_WINDOW);
        self.flood.charge(Nuisance::Trifle, Instant::now())?;
        if head.stream == StreamId::CONNECTION {
            if increment == 0 {
                return Err(TunnelFailure::protocol("a window is raised by nothing"));
            }
            return raise(&mut self.window, increment);
        }
        self.ensure_not_idle(head.stream)?;
        let Some(stream) = self.streams.get_mut(&head.stream) else {
            return Ok(());
        };
        if increment == 0 {
            self.refuse_stream(head.stream, ErrorCode::PROTOCOL_ERROR);
            return Ok(());
        }
        if raise(&mut stream.sending.window, increment).is_err() {
            self.refuse_stream(head.stream, ErrorCode::FLOW_CONTROL_ERROR);
            return Ok(());
        }
        if stream.sending.line == Line::Window && stream.sending.window > 0 {
            stream.sending.line = Line::Free;
            if let Some(writer) = stream.sending.writer.take() {
                writer.wake();
            }
        }
        Ok(())
    }

    fn reset_by_peer(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), TunnelFailure> {
        let code = ErrorCode(u32_of(payload)?);
        self.ensure_not_idle(head.stream)?;
        let Some(stream) = self.streams.get_mut(&head.stream) else {
            return Ok(self.flood.charge(Nuisance::Trifle, Instant::now())?);
        };
        let was_taken = !matches!(stream.head, Head::Untaken);
        let was_wasted = matches!(stream.head, Head::Untaken | Head::Taken);
        stream.fail(StreamFailure::Reset(code));
        if was_wasted {
            self.flood.charge(Nuisance::WastedStream, Instant::now())?;
        }
        if was_taken {
            self.touch(head.stream);
            return Ok(());
        }
        // It has no owner yet that would forget it.
        self.streams.remove(&head.stream);
        let is_other =
            |arrival: &Arrival| !matches!(arrival, Arrival::Request(id, _) if *id == head.stream);
        self.arrivals.retain(is_other);
        Ok(())
    }

    fn go_away(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), TunnelFailure> {
        if head.stream != StreamId::CONNECTION {
            return Err(TunnelFailure::protocol("GOAWAY of a stream"));
        }
        let (last, rest) = payload
            .split_at_checked(4)
            .ok_or(TunnelFailure::frame_size())?;
        let code = rest.get(..4).ok_or(TunnelFailure::frame_size())?;
        let (last, code) = (
            StreamId(u32_of(last)? & LARGEST_WINDOW),
            ErrorCode(u32_of(code)?),
        );
        self.flood.charge(Nuisance::Trifle, Instant::now())?;
        self.peer_leaves = true;
        if self.role == Role::Client {
            for (id, stream) in &mut self.streams {
                if *id > last {
                    stream.fail(StreamFailure::Reset(ErrorCode::REFUSED_STREAM));
                }
            }
        }
        if code != ErrorCode::NO_ERROR {
            return Err(TunnelFailure::GoneAway(code));
        }
        Ok(())
    }

    /// Checks that a stream was opened at some time.
    fn ensure_not_idle(&self, id: StreamId) -> Result<(), TunnelFailure> {
        if id.is_clients() && id <= self.last {
            return Ok(());
        }
        Err(TunnelFailure::protocol(
            "a frame for a stream that was never opened",
        ))
    }
}

fn next_head() -> Place {
    Place::Head([0; FRAME_HEAD], 0)
}

fn after(place: Place, is_empty: bool, rest: &[u8]) -> (Place, &[u8]) {
    (if is_empty { next_head() } else { place }, rest)
}

fn u32_of(payload: &[u8]) -> Result<u32, TunnelFailure> {
    let bytes = payload
        .try_into()
        .map_err(|_| TunnelFailure::frame_size())?;
    Ok(u32::from_be_bytes(bytes))
}

fn raise(window: &mut i64, by: i64) -> Result<(), TunnelFailure> {
    *window += by;
    if *window > i64::from(LARGEST_WINDOW) {
        return Err(TunnelFailure::flow_control());
    }
    Ok(())
}
