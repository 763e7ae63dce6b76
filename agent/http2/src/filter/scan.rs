//! Looks at bytes as they come.

use bytes::BytesMut;

use super::HeadLimits;
use super::blocks::{Next, next};
use super::heads::{Heads, Passed};

/// Where a connection is.
#[derive(Debug)]
pub(super) struct Scanner {
    /// `None` if the connection is no longer looked at, because it is about to end.
    heads: Option<Heads>,
    limits: HeadLimits,
    /// Bytes to come that pass as they are.
    passing: usize,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Scanned {
    /// So many bytes pass as they are.
    pub(super) passed: usize,
    pub(super) then: Then,
}

/// What is behind the bytes that pass.
#[derive(Debug)]
pub(super) enum Then {
    /// Nothing.
    Nothing,
    /// The beginning of something that has to be looked at when it has this length.
    Held(usize),
    /// A header block of this length, and the frames that take its place. More may follow.
    Replaced(usize, BytesMut),
}

impl Scanner {
    /// A connection that begins with `passing` bytes that are not frames.
    pub(super) fn new(limits: HeadLimits, passing: usize) -> Self {
        Self {
            heads: Some(Heads::new(limits)),
            limits,
            passing,
        }
    }

    /// Lets all pass from here on.
    pub(super) fn give_up(&mut self) {
        self.heads = None;
    }

    /// Looks at the next bytes, together with those that were held.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Scanned {
        let mut passed = 0;
        let then = loop {
            let passing = self.passing.min(bytes.len() - passed);
            passed += passing;
            self.passing -= passing;
            let rest = &bytes[passed..];
            let Some(heads) = &mut self.heads else {
                passed = bytes.len();
                break Then::Nothing;
            };
            if rest.is_empty() {
                break Then::Nothing;
            }
            match next(rest, self.limits) {
                Next::Frame(length) => self.passing = length,
                Next::Incomplete(length) => break Then::Held(length),
                Next::Broken => self.heads = None,
                Next::Block(block) => match heads.pass(&block) {
                    Ok(Passed::Unchanged) => passed += block.length,
                    Ok(Passed::Instead(frames)) => break Then::Replaced(block.length, frames),
                    Err(error) => {
                        tracing::debug!(%error, "a connection of HTTP/2 cannot be read any more");
                        self.heads = None;
                    }
                },
            }
        };
        Scanned { passed, then }
    }
}
