//! What h2 gets of each header block.

use bytes::BytesMut;

use super::HeadLimits;
use super::blocks::HeaderBlock;
use crate::fields::{HeadJudge, Malformed, Note};
use crate::frame::{END_HEADERS, END_STREAM, FrameKind, StreamId, put_frame};
use crate::hpack::{Decoder, FieldReader, HpackError, write_literal};

/// A table of no bytes (RFC 7541, section 6.3).
const NO_TABLE: u8 = 0x20;

/// The field that takes the place of a malformed head. In HTTP/2 it makes a head malformed, and h2 resets the
/// stream.
const MARK: &[u8] = b"connection";

/// What h2 gets.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Passed {
    /// The block as it came.
    Unchanged,
    /// Another, as frames.
    Instead(BytesMut),
}

/// The heads of one direction of a connection.
#[derive(Debug)]
pub(super) struct Heads {
    decoder: Decoder<Note>,
    h2s_table: Table,
    limits: HeadLimits,
}

/// What h2 has in its table of fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Table {
    /// The same as the peer.
    Shared,
    /// Nothing, since a malformed head has come: its fields cannot be in h2's table.
    Unused,
}

impl Heads {
    pub(super) fn new(limits: HeadLimits) -> Self {
        Self {
            decoder: Decoder::default(),
            h2s_table: Table::Shared,
            limits,
        }
    }

    /// Looks at a block.
    ///
    /// # Errors
    /// [`HpackError`]: the connection is lost.
    pub(super) fn pass(&mut self, block: &HeaderBlock<'_>) -> Result<Passed, HpackError> {
        let mut judge = HeadJudge::default();
        if block.depends_on_itself {
            // h2 resets the stream, and forgets about its table.
            judge.refuse(Malformed::DependsOnItself);
        }
        match self.h2s_table {
            Table::Shared => {
                self.decoder.decode(&block.fields, &mut judge)?;
                Ok(match judge.judgement() {
                    Ok(()) => Passed::Unchanged,
                    Err(malformed) => {
                        self.h2s_table = Table::Unused;
                        Passed::Instead(self.refusal(&[NO_TABLE], block, malformed))
                    }
                })
            }
            Table::Unused => {
                let mut rewriter = Rewriter {
                    judge,
                    most: self.limits.list,
                    fields: BytesMut::new(),
                };
                self.decoder.decode(&block.fields, &mut rewriter)?;
                Ok(Passed::Instead(match rewriter.judge.judgement() {
                    Ok(()) => self.frames(block, &rewriter.fields),
                    Err(malformed) => self.refusal(&[], block, malformed),
                }))
            }
        }
    }

    /// Returns what makes h2 reset a stream, and nothing else.
    fn refusal(&self, before: &[u8], block: &HeaderBlock<'_>, malformed: Malformed) -> BytesMut {
        let StreamId(stream) = block.stream;
        tracing::debug!(stream, %malformed, "a malformed head of HTTP/2 ends its stream");
        let mut fields = BytesMut::from(before);
        write_literal(&mut fields, MARK, b"");
        self.frames(block, &fields)
    }

    /// Returns a block as frames, without padding and priority, with these fields.
    fn frames(&self, block: &HeaderBlock<'_>, fields: &[u8]) -> BytesMut {
        let mut frames = BytesMut::with_capacity(fields.len() + 64);
        let mut kind = FrameKind::Headers;
        let mut flags = if block.is_last { END_STREAM } else { 0 };
        let mut rest = fields;
        loop {
            let (fragment, left) = rest.split_at(rest.len().min(self.limits.frame));
            if left.is_empty() {
                flags |= END_HEADERS;
            }
            put_frame(&mut frames, kind, flags, block.stream, fragment);
            if left.is_empty() {
                return frames;
            }
            (kind, flags, rest) = (FrameKind::Continuation, 0, left);
        }
    }
}

/// Writes a head anew, with all its text.
struct Rewriter {
    judge: HeadJudge,
    /// The most bytes of the head, as HTTP/2 counts them. One byte of a block can name an entry of thousands.
    most: usize,
    fields: BytesMut,
}

impl FieldReader for Rewriter {
    type Note = Note;

    fn note(name: &[u8], value: &[u8]) -> Note {
        Note::of(name, value)
    }

    fn read(&mut self, name: &[u8], value: &[u8], note: Note) {
        self.judge.read(name, value, note);
        if self.judge.length() > self.most {
            self.judge.refuse(Malformed::TooLong);
        }
        match self.judge.judgement() {
            Ok(()) => write_literal(&mut self.fields, name, value),
            Err(_) => self.fields.clear(),
        }
    }
}
