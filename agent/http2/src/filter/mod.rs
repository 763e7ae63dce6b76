//! A malformed head ends its own stream.
//!
//! RFC 9113 calls a head malformed that can be decompressed and that HTTP does not allow: a path that is not
//! UTF-8, a name in upper case, a control character. It ends the stream (section 8.1.1), while a head that cannot
//! be decompressed ends the connection (section 4.3). h2 ends the connection because of both, with all its streams.
//!
//! So each header block is decompressed here before h2 gets it. One that is in order passes as it is. Instead of one
//! that is malformed, h2 gets a head for which it resets the stream, and nothing of the other. From then on, h2's
//! table of fields is empty, and each further head is written anew without it: the peer's table may have fields that
//! h2 could not hold.
//!
//! The filter does not decide what is permitted. What is judged and sent on is what h2 reads. If h2 and the filter
//! ever read a block differently, a stream or a connection ends, and nothing else happens.

mod blocks;
mod heads;
mod scan;
#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use self::scan::{Scanned, Scanner, Then};
use crate::frame::PREFACE;

/// What h2 has been told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadLimits {
    /// The largest payload of a frame: SETTINGS_MAX_FRAME_SIZE, 16 KiB at least.
    pub frame: usize,
    /// The most bytes of a head: SETTINGS_MAX_HEADER_LIST_SIZE.
    pub list: usize,
}

/// Keeps malformed heads from the reader of a connection.
///
/// It copies only heads that come in several pieces or are written anew. It waits for at most one header block.
#[derive(Debug)]
pub struct HeadFilter<S> {
    stream: S,
    scanner: Scanner,
    /// What was read and has not passed.
    held: BytesMut,
    /// How many bytes `held` lacks before it is looked at.
    lacking: usize,
    /// What passes next.
    passed: BytesMut,
}

impl<S> HeadFilter<S> {
    /// Filters the requests of a client's connection.
    pub fn of_client(stream: S, limits: HeadLimits) -> Self {
        Self::new(stream, Scanner::new(limits, PREFACE.len()))
    }

    /// Filters the answers of a server's connection.
    pub fn of_server(stream: S, limits: HeadLimits) -> Self {
        Self::new(stream, Scanner::new(limits, 0))
    }

    fn new(stream: S, scanner: Scanner) -> Self {
        Self {
            stream,
            scanner,
            held: BytesMut::new(),
            lacking: 0,
            passed: BytesMut::new(),
        }
    }

    /// Looks at what is held.
    fn scan_held(&mut self) {
        let Scanned { passed, then } = self.scanner.scan(&self.held);
        self.passed = self.held.split_to(passed);
        self.keep(then);
    }

    /// Keeps what was found behind the bytes that passed, which are gone from `held`.
    fn keep(&mut self, then: Then) {
        match then {
            Then::Nothing => {}
            Then::Held(length) => {
                self.lacking = length - self.held.len();
                self.held.reserve(self.lacking);
            }
            Then::Replaced(length, frames) => {
                self.held.advance(length);
                self.passed.unsplit(frames);
            }
        }
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
    }
}

impl<S: AsyncRead + Unpin> HeadFilter<S> {
    /// Reads into an empty `held`, or passes bytes in the reader's buffer.
    fn poll_begun(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = &buffer.filled()[before..];
        let length = read.len();
        let Scanned { passed, then } = self.scanner.scan(read);
        self.held.extend_from_slice(&read[passed..]);
        self.keep(then);
        buffer.set_filled(before + passed);
        Poll::Ready(Ok(length))
    }

    /// Reads more of what `held` lacks.
    fn poll_held(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut lacking = (&mut self.held).limit(self.lacking);
        let read = ready!(poll_read_buf(
            Pin::new(&mut self.stream),
            context,
            &mut lacking
        ))?;
        self.lacking -= read;
        if read == 0 {
            // It ends within a frame. h2 says so.
            self.scanner.give_up();
            self.lacking = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadFilter<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        loop {
            if !this.passed.is_empty() {
                let length = this.passed.len().min(buffer.remaining());
                buffer.put_slice(&this.passed.split_to(length));
                if this.passed.is_empty() {
                    this.passed = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            if this.held.is_empty() {
                let read = ready!(this.poll_begun(context, buffer))?;
                if read == 0 || buffer.filled().len() > before {
                    return Poll::Ready(Ok(()));
                }
            } else if this.lacking > 0 {
                ready!(this.poll_held(context))?;
            } else {
                this.scan_held();
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeadFilter<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
