//! The memory of the buffers that connections are read into.

use ambit_account::{AccountExhausted, Charge, PodAccount};
use bytes::BytesMut;

/// Bytes that are read at once after a pause. What is charged for a request covers two such buffers.
pub(in super::super) const SCANT: usize = 8 << 10;

/// Bytes that are read at once while many come and memory is plentiful.
const AMPLE: usize = 64 << 10;

/// A buffer with less room than this grows before it is read into.
const LEAST: usize = 1 << 10;

/// Draws what a buffer takes from a pod's account: what is beyond [`SCANT`] before it is there, and all of it
/// while a part of a head waits in it for the rest. Short messages never touch the account.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// `None` if no account is charged.
    charge: Option<Charge>,
    next: NextRead,
}

/// How much the next read into an empty buffer may return.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum NextRead {
    #[default]
    Scant,
    /// The last one filled its buffer.
    Ample,
}

impl Room {
    /// Charges `memory` from now on.
    pub(super) fn draw_from(&mut self, memory: &PodAccount) {
        self.charge = Some(memory.nothing());
    }

    /// The room of another buffer, charged to the same account.
    pub(super) fn of_same_account(&mut self) -> Self {
        Self {
            charge: self.charge.as_mut().map(|charge| charge.split(0)),
            next: NextRead::Scant,
        }
    }

    /// Makes room for one read.
    ///
    /// # Errors
    /// [`AccountExhausted`] if the buffer is not empty and has to grow.
    pub(super) fn make(&mut self, buffer: &mut BytesMut) -> Result<(), AccountExhausted> {
        if buffer.is_empty() {
            let size = self.next_size();
            buffer.reserve(size);
            return Ok(());
        }
        if buffer.capacity() - buffer.len() < LEAST {
            buffer.reserve(buffer.len().max(SCANT));
        }
        self.cover(buffer.capacity().saturating_sub(SCANT))
    }

    /// Makes room for one read, and charges the whole buffer if a part of a head waits in it.
    ///
    /// # Errors
    /// [`AccountExhausted`].
    pub(super) fn hold(&mut self, buffer: &mut BytesMut) -> Result<(), AccountExhausted> {
        if buffer.is_empty() {
            return Ok(());
        }
        self.make(buffer)?;
        self.cover(buffer.capacity())
    }

    /// Notes that a read returned `length` bytes.
    pub(super) fn read(&mut self, length: usize, buffer: &BytesMut) {
        if buffer.len() == buffer.capacity() {
            self.next = NextRead::Ample;
        } else if length < SCANT {
            self.next = NextRead::Scant;
        }
    }

    /// Gives up an empty buffer, so that a connection that waits has none.
    pub(super) fn give_up(&mut self, buffer: &mut BytesMut) {
        *buffer = BytesMut::new();
        if let Some(charge) = &mut self.charge {
            charge.shrink(charge.bytes());
        }
    }

    fn next_size(&mut self) -> usize {
        match (self.next, &mut self.charge) {
            (NextRead::Scant, _) => SCANT,
            (NextRead::Ample, None) => AMPLE,
            (NextRead::Ample, Some(charge)) => {
                let missing = (AMPLE - SCANT).saturating_sub(charge.bytes());
                if missing > 0 {
                    charge.extend(missing);
                }
                SCANT + charge.bytes().min(AMPLE - SCANT)
            }
        }
    }

    fn cover(&mut self, bytes: usize) -> Result<(), AccountExhausted> {
        match &mut self.charge {
            Some(charge) if charge.bytes() < bytes => charge.grow(bytes - charge.bytes()),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use ambit_account::NodeAccount;

    use super::*;

    /// Reads `bytes` into the room that was made.
    fn read(room: &mut Room, buffer: &mut BytesMut, bytes: usize) {
        buffer.extend_from_slice(&vec![b'x'; bytes]);
        room.read(bytes, buffer);
    }

    fn drawing_from(node: &NodeAccount) -> Room {
        let mut room = Room::default();
        room.draw_from(&node.pod());
        room
    }

    #[test]
    fn short_messages_take_nothing_from_the_account() {
        let node = NodeAccount::new(0);
        let mut room = drawing_from(&node);
        let mut buffer = BytesMut::new();
        for _ in 0..10 {
            room.make(&mut buffer).expect("nothing is charged");
            assert_eq!(buffer.capacity(), SCANT);
            read(&mut room, &mut buffer, 700);
            buffer.clear();
            room.give_up(&mut buffer);
        }
        assert_eq!((node.usage().peak, node.usage().refused), (0, 0));
    }

    #[test]
    fn reads_grow_while_they_fill_their_buffer_and_memory_is_plentiful() {
        let node = NodeAccount::new(64 << 20);
        let mut room = drawing_from(&node);
        let mut buffer = BytesMut::new();
        room.make(&mut buffer).expect("room");
        read(&mut room, &mut buffer, SCANT);
        buffer.clear();
        room.give_up(&mut buffer);
        room.make(&mut buffer).expect("room");
        assert_eq!(buffer.capacity(), AMPLE);
        assert_eq!(node.usage().in_use, AMPLE - SCANT);
        room.give_up(&mut buffer);
        assert_eq!((node.usage().in_use, buffer.capacity()), (0, 0));
    }

    #[test]
    fn without_spare_memory_reads_stay_small() {
        let node = NodeAccount::new(0);
        let mut room = drawing_from(&node);
        let mut buffer = BytesMut::new();
        for _ in 0..3 {
            room.make(&mut buffer).expect("no more than is covered");
            assert_eq!(buffer.capacity(), SCANT);
            read(&mut room, &mut buffer, SCANT);
            buffer.clear();
        }
    }

    #[test]
    fn a_part_of_a_head_is_charged_with_all_that_its_buffer_takes() {
        let node = NodeAccount::new(64 << 20);
        let mut room = drawing_from(&node);
        let mut buffer = BytesMut::new();
        room.make(&mut buffer).expect("room");
        read(&mut room, &mut buffer, 1);
        while buffer.len() < 60 << 10 {
            room.hold(&mut buffer).expect("room");
            assert!(node.usage().in_use >= buffer.capacity());
            let free = buffer.capacity() - buffer.len();
            assert!(free >= LEAST);
            read(&mut room, &mut buffer, free);
        }
        assert!(node.usage().in_use <= 128 << 10, "{:?}", node.usage());
    }

    #[test]
    fn a_part_of_a_head_is_refused_if_there_is_no_memory_for_it() {
        let node = NodeAccount::new(0);
        let mut room = drawing_from(&node);
        let mut buffer = BytesMut::new();
        room.make(&mut buffer).expect("covered");
        read(&mut room, &mut buffer, 1);
        room.hold(&mut buffer).expect_err("not covered");
        assert_eq!(node.usage().refused, 1);
    }
}
