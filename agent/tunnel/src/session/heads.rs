//! The heads that open, answer and end streams.

use std::time::Instant;

use bytes::BytesMut;

use super::receive::LARGEST_CONTROL;
use super::stream::{FIRST_WINDOW, Head, Received, Sent, Stream};
use super::{Arrival, Life, MOST_STREAMS, Role, Session, SettingsState};
use crate::failure::{StreamFailure, TunnelFailure};
use crate::flood::Nuisance;
use crate::frame::{
    DEFAULT_WINDOW, END_HEADERS, END_STREAM, ErrorCode, FrameHead, PADDED, PRIORITY, StreamId,
    put_reset,
};
use crate::head::{HeadReader, MalformedHead};

/// The most frames of one header block. A block that is cut into more is an attack (CVE-2024-27316).
const MOST_CONTINUATIONS: usize = 16;

/// The fragments of a head.
#[derive(Debug)]
pub(super) struct HeaderBlock {
    pub(super) stream: StreamId,
    is_last: bool,
    fragments: BytesMut,
    frames: usize,
}

impl Session {
    pub(super) fn headers(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), TunnelFailure> {
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

    pub(super) fn continuation(
        &mut self,
        head: FrameHead,
        payload: &[u8],
    ) -> Result<(), TunnelFailure> {
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
        self.decoder.decode(block, &mut reader)?;
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
        if matches!(self.life, Life::Leaving | Life::Ended(_)) {
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
    pub(super) fn refuse_stream(&mut self, id: StreamId, code: ErrorCode) {
        if let Some(stream) = self.streams.get_mut(&id) {
            put_reset(&mut self.outgoing.ordered, id, code);
            stream.sending.state = Sent::Reset;
            stream.fail(StreamFailure::Reset(code));
        }
    }
}
