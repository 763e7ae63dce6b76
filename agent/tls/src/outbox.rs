//! Sealed records, until the network has taken them.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::BytesMut;

use crate::record::{HEADER, MOST_CONTENT, TAIL};

/// How many pieces one call writes: a quarter of a megabyte in full records, and some more.
const PIECES: usize = 64;

/// A buffer that is larger than this is not kept for less than half of it.
const WORTH_KEEPING: usize = 4 << 10;

/// Sealed records.
#[derive(Default)]
pub struct Outbox {
    batches: VecDeque<Batch>,
    /// How much of the first batch has been written.
    written: usize,
}

/// Records with one buffer of content. What belongs around each record's content is beside it: the content was
/// encrypted where it was.
pub(crate) struct Batch {
    content: BytesMut,
    /// For each record its header, then its tail. So a tail and the next header are one piece.
    rims: Vec<u8>,
}

impl Batch {
    /// `rims` has a header and a tail for each [`MOST_CONTENT`] bytes of `content`, and for what is left.
    pub(crate) fn new(content: BytesMut, rims: Vec<u8>) -> Self {
        Self { content, rims }
    }

    fn len(&self) -> usize {
        self.content.len() + self.rims.len()
    }

    /// The pieces in the order in which they are written.
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let (first, rest) = self.rims.split_at(self.rims.len().min(HEADER));
        let chunks = self.content.chunks(MOST_CONTENT);
        let rims = rest.chunks(TAIL + HEADER);
        let both = chunks.zip(rims).flat_map(|(chunk, rim)| [chunk, rim]);
        [first].into_iter().chain(both)
    }
}

impl Outbox {
    /// Whether the network has taken everything.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(crate) fn push(&mut self, batch: Batch) {
        self.batches.push_back(batch);
    }

    /// Hands what comes next to `write`, which returns how much the network took.
    pub fn write<E>(
        &mut self,
        write: impl FnOnce(&[IoSlice<'_>]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let mut skip = self.written;
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let mut filled = 0;
        let all = self.batches.iter().flat_map(Batch::pieces);
        for piece in all {
            let skipped = skip.min(piece.len());
            skip -= skipped;
            if skipped < piece.len() {
                pieces[filled] = IoSlice::new(&piece[skipped..]);
                filled += 1;
            }
            if filled == PIECES {
                break;
            }
        }
        write(&pieces[..filled])
    }

    /// Forgets what the network took. Buffers that are empty then go to `spare`.
    pub fn took(&mut self, bytes: usize, mut spare: impl FnMut(BytesMut)) {
        self.written += bytes;
        while let Some(first) = self.batches.front()
            && self.written >= first.len()
        {
            self.written -= first.len();
            if let Some(done) = self.batches.pop_front() {
                spare(done.content);
            }
        }
        if self.batches.is_empty() {
            // A connection at rest has no buffers.
            self.batches = VecDeque::new();
        }
    }

    /// Gives up large buffers that hold little, because the network takes nothing for now.
    pub fn wait(&mut self, mut spare: impl FnMut(BytesMut)) {
        for batch in &mut self.batches {
            let capacity = batch.content.capacity();
            if capacity > WORTH_KEEPING && batch.content.len() < capacity / 2 {
                let exact = BytesMut::from(&batch.content[..]);
                spare(std::mem::replace(&mut batch.content, exact));
            }
        }
    }
}
