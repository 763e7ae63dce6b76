//! What a peer sends: frames out of bytes. DATA is handed to its stream in pieces, as it comes; what the other
//! frames change is in [`super::heads`] and [`super::control`].

use std::io::IoSlice;
use std::time::Instant;

use bytes::BytesMut;

use super::heads::HeaderBlock;
use super::stream::{GATHERED, Received, Stream};
use super::{LARGEST_FRAME, RAISE_AT, Role, Session};
use crate::failure::TunnelFailure;
use crate::flood::{Flooded, Nuisance};
use crate::frame::{
    ACK, END_STREAM, ErrorCode, FRAME_HEAD, FrameHead, FrameKind, PADDED, PREFACE, StreamId,
    put_window_update,
};
use crate::head::LARGEST_HEAD;

/// The most bytes of a frame other than DATA.
pub(super) const LARGEST_CONTROL: usize = LARGEST_HEAD;

/// Takes bytes in pieces of any size.
#[derive(Debug)]
pub(super) struct FrameReader {
    place: Place,
    /// A header block that is not complete.
    pub(super) block: Option<HeaderBlock>,
    pub(super) has_settings: bool,
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

/// Payload of one stream that has come, and was not copied yet.
struct Run<'a> {
    stream: StreamId,
    parts: [IoSlice<'a>; GATHERED],
    filled: usize,
}

impl<'a> Run<'a> {
    fn new() -> Self {
        Self {
            stream: StreamId::CONNECTION,
            parts: [IoSlice::new(&[]); GATHERED],
            filled: 0,
        }
    }

    fn has_room_for(&self, stream: StreamId) -> bool {
        self.filled == 0 || (self.stream == stream && self.filled < GATHERED)
    }

    fn push(&mut self, stream: StreamId, payload: &'a [u8]) {
        if !payload.is_empty() {
            self.stream = stream;
            self.parts[self.filled] = IoSlice::new(payload);
            self.filled += 1;
        }
    }
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
    /// Takes in bytes from the peer, in pieces. [`Session::deliver`] has to follow.
    ///
    /// # Errors
    /// [`TunnelFailure`] that ends the connection.
    pub(crate) fn receive(&mut self, pieces: &[&[u8]]) -> Result<(), TunnelFailure> {
        let mut run = Run::new();
        let mut pieces = pieces.iter();
        let taken = pieces.try_for_each(|piece| self.receive_piece(piece, &mut run));
        self.settle(&mut run);
        taken
    }

    fn receive_piece<'a>(
        &mut self,
        mut input: &'a [u8],
        run: &mut Run<'a>,
    ) -> Result<(), TunnelFailure> {
        while !input.is_empty() {
            let place = std::mem::replace(&mut self.reader.place, Place::Skip(0));
            let (next, rest) = self.step(place, input, run)?;
            self.reader.place = next;
            input = rest;
        }
        Ok(())
    }

    /// Lets a stream have its payload.
    fn settle(&mut self, run: &mut Run<'_>) {
        let filled = std::mem::take(&mut run.filled);
        if let Some(stream) = self.streams.get_mut(&run.stream) {
            stream.receiving.take_in(&run.parts[..filled]);
        }
    }

    /// Takes some of `input`, which is not empty, and returns the rest.
    fn step<'a>(
        &mut self,
        place: Place,
        input: &'a [u8],
        run: &mut Run<'a>,
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
            Place::Data(frame) => self.data(frame, input, run),
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
        run: &mut Run<'a>,
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
            self.take_in(frame.stream, &[], 1, run)?;
            rest = after;
        }
        let (payload, after) = rest.split_at(frame.payload.min(rest.len()));
        frame.payload -= payload.len();
        let padding = frame.padding.min(after.len());
        if frame.payload == 0 {
            frame.padding -= padding;
            rest = &after[padding..];
            self.take_in(frame.stream, payload, padding, run)?;
        } else {
            rest = after;
            self.take_in(frame.stream, payload, 0, run)?;
        }
        if frame.payload == 0 && frame.padding == 0 {
            self.end_data(frame);
            return Ok((next_head(), rest));
        }
        Ok((Place::Data(frame), rest))
    }

    fn take_in<'a>(
        &mut self,
        id: StreamId,
        payload: &'a [u8],
        padding: usize,
        run: &mut Run<'a>,
    ) -> Result<(), TunnelFailure> {
        if let Some(stream) = self.streams.get_mut(&id)
            && matches!(stream.receiving.state, Received::Open)
        {
            self.flood.carried(payload.len());
            stream.receive(payload.len(), padding)?;
            if !run.has_room_for(id) {
                self.settle(run);
            }
            run.push(id, payload);
            self.touch(id);
        }
        Ok(())
    }

    fn end_data(&mut self, frame: DataFrame) {
        if frame.is_last {
            self.end_receiving(frame.stream);
        }
    }

    pub(super) fn end_receiving(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && matches!(stream.receiving.state, Received::Open)
        {
            stream.receiving.state = Received::Ended;
            self.touch(id);
        }
    }

    pub(super) fn touch(&mut self, id: StreamId) {
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

    /// Checks that a stream was opened at some time.
    pub(super) fn ensure_not_idle(&self, id: StreamId) -> Result<(), TunnelFailure> {
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
