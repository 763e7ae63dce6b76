//! What waits to be encrypted, and who may add to it next.
//!
//! Little waits here: as much as the network takes at once. Beyond that, the bytes stay in the
//! applications' sockets, and the streams stand in line. A stream that had little to send so far goes
//! before those with a backlog, so that a small request does not wait for all the downloads beside it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::flood::Flooded;
use crate::frame::{ACK, FrameKind, StreamId, put_frame};
use crate::spare;

/// The least and the most that may wait.
const LEAST_ROOM: usize = 4 << 10;
const MOST_ROOM: usize = 256 << 10;

/// A network that takes longer than this for what waits gets less at once.
const SLOW: Duration = Duration::from_millis(10);

/// A network that takes less than this gets more at once.
const QUICK: Duration = Duration::from_millis(1);

/// The most that one stream adds at once.
const MOST_SLICE: usize = 64 << 10;

/// The least slice that is worth a system call.
const LEAST_SLICE: usize = 2 << 10;

/// The most that frames without payload may take before the peer has to read (PING is answered).
pub(crate) const MOST_URGENT: usize = 64 << 10;

/// The most SETTINGS that are acknowledged before the peer has to read.
const MOST_ACKNOWLEDGEMENTS: usize = 1000;

/// Frames in the order in which they are sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// What goes before all payload: settings, pings, windows, heads.
    pub(crate) urgent: BytesMut,
    /// Payload, and what must not overtake it: the ends of streams, and the acknowledgement of settings, after
    /// which the peer counts payload by the new windows.
    pub(crate) ordered: BytesMut,
    /// The acknowledgements in `ordered`.
    acknowledgements: usize,
    room: usize,
    /// Since when the network has not taken what it was given.
    blocked: Option<Instant>,
    sparse: VecDeque<StreamId>,
    backlogged: VecDeque<StreamId>,
}

impl Outgoing {
    pub(crate) fn new() -> Self {
        Self {
            urgent: BytesMut::new(),
            ordered: BytesMut::new(),
            acknowledgements: 0,
            room: MOST_ROOM / 4,
            blocked: None,
            sparse: VecDeque::new(),
            backlogged: VecDeque::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.ordered.is_empty()
    }

    /// Returns the buffer of what goes in order, with room for `bytes` more.
    pub(crate) fn room_for(&mut self, bytes: usize) -> &mut BytesMut {
        if self.ordered.capacity() == 0 {
            self.ordered = spare::take();
        }
        self.ordered.reserve(bytes);
        &mut self.ordered
    }

    /// Tells the peer that its settings are in force from now on.
    ///
    /// # Errors
    /// If the peer sends settings without reading the answers.
    pub(crate) fn acknowledge_settings(&mut self) -> Result<(), Flooded> {
        self.acknowledgements += 1;
        if self.acknowledgements > MOST_ACKNOWLEDGEMENTS {
            return Err(Flooded);
        }
        let out = &mut self.ordered;
        put_frame(out, FrameKind::Settings, ACK, StreamId::CONNECTION, &[]);
        Ok(())
    }

    /// Hands on what waits, in the order in which it is sent. A connection at rest has no buffers.
    pub(crate) fn take(&mut self) -> [BytesMut; 2] {
        self.acknowledgements = 0;
        [
            std::mem::take(&mut self.urgent),
            std::mem::take(&mut self.ordered),
        ]
    }

    /// How much a stream may add now.
    pub(crate) fn slice(&self) -> usize {
        if self.blocked.is_some() {
            return 0;
        }
        let left = self.room.saturating_sub(self.ordered.len());
        left.min((self.room / 4).clamp(LEAST_SLICE, MOST_SLICE))
    }

    /// How much may wait.
    pub(crate) const fn room(&self) -> usize {
        self.room
    }

    /// Whether the network has not taken what it was given.
    pub(crate) const fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Lets a stream stand in line.
    pub(crate) fn queue(&mut self, stream: StreamId, has_backlog: bool) {
        if has_backlog {
            self.backlogged.push_back(stream);
        } else {
            self.sparse.push_back(stream);
        }
    }

    /// Returns the stream whose turn it is.
    pub(crate) fn next(&mut self) -> Option<StreamId> {
        self.sparse
            .pop_front()
            .or_else(|| self.backlogged.pop_front())
    }

    /// How many streams can add something at once.
    pub(crate) fn turns(&self) -> usize {
        match self.slice() {
            0 => 0,
            slice => self.room.saturating_sub(self.ordered.len()).div_ceil(slice),
        }
    }

    pub(crate) fn has_queue(&self) -> bool {
        !self.sparse.is_empty() || !self.backlogged.is_empty()
    }

    /// The network took all that it was given.
    pub(crate) fn flushed(&mut self, now: Instant) {
        let took = match self.blocked.take() {
            Some(since) => now.saturating_duration_since(since),
            None => Duration::ZERO,
        };
        if took > SLOW {
            self.room = (self.room / 2).max(LEAST_ROOM);
        } else if took < QUICK {
            self.room = (self.room * 2).min(MOST_ROOM);
        }
    }

    /// The network did not take all that it was given.
    pub(crate) fn blocked(&mut self, now: Instant) {
        self.blocked.get_or_insert(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_network_gets_little_at_once_and_a_fast_one_much() {
        let mut now = Instant::now();
        let mut outgoing = Outgoing::new();
        for _ in 0..10 {
            outgoing.blocked(now);
            assert_eq!(outgoing.slice(), 0);
            now += 4 * SLOW;
            outgoing.flushed(now);
        }
        assert_eq!(
            (outgoing.room(), outgoing.slice()),
            (LEAST_ROOM, LEAST_SLICE)
        );
        for _ in 0..10 {
            outgoing.blocked(now);
            now += QUICK / 2;
            outgoing.flushed(now);
        }
        assert_eq!((outgoing.room(), outgoing.slice()), (MOST_ROOM, MOST_SLICE));
    }

    #[test]
    fn a_stream_without_a_backlog_goes_first() {
        let mut outgoing = Outgoing::new();
        outgoing.queue(StreamId(1), true);
        outgoing.queue(StreamId(3), true);
        outgoing.queue(StreamId(5), false);
        let turns: Vec<u32> = std::iter::from_fn(|| outgoing.next())
            .map(|id| id.0)
            .collect();
        assert_eq!(turns, [5, 1, 3]);
    }
}
