//! How much an authorizer has said, whether or not it can be read.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::CheckError;
use super::network::AuthorizerStream;

/// Counts the bytes that came on a connection. Clones share the count.
#[derive(Clone, Debug, Default)]
pub(super) struct ReceivedBytes(Rc<Cell<u64>>);

/// A connection whose incoming bytes are counted.
pub(super) struct CountedStream {
    stream: Box<dyn AuthorizerStream>,
    heard: ReceivedBytes,
}

/// Who is being asked in the course of one check, and whether an answer has begun. An answer that has
/// begun and does not end may have been a denial.
#[derive(Debug, Default)]
pub(super) struct AnswerProgress(RefCell<Option<Attempt>>);

#[derive(Debug)]
struct Attempt {
    address: SocketAddr,
    heard: ReceivedBytes,
    before: u64,
}

impl ReceivedBytes {
    /// How many bytes came.
    pub(super) fn bytes(&self) -> u64 {
        self.0.get()
    }

    /// Counts more.
    pub(super) fn add(&self, bytes: usize) {
        self.0.set(self.0.get() + bytes as u64);
    }
}

impl CountedStream {
    pub(super) fn new(stream: Box<dyn AuthorizerStream>, heard: ReceivedBytes) -> Self {
        Self { stream, heard }
    }
}

impl AnswerProgress {
    /// Notes that a check is about to be sent on a connection.
    pub(super) fn ask(&self, address: SocketAddr, heard: ReceivedBytes) {
        let before = heard.bytes();
        self.0.replace(Some(Attempt {
            address,
            heard,
            before,
        }));
    }

    /// Whether an answer has begun.
    pub(super) fn has_begun(&self) -> bool {
        let asked = self.0.borrow();
        asked
            .as_ref()
            .is_some_and(|asked| asked.heard.bytes() > asked.before)
    }

    /// The error of an answer that has begun and does not end; `None` if none has begun.
    pub(super) fn broken_off(&self, problem: impl Into<String>) -> Option<CheckError> {
        let asked = self.0.borrow();
        let asked = asked.as_ref()?;
        (asked.heard.bytes() > asked.before).then(|| CheckError::Malformed {
            address: asked.address,
            problem: format!("it began, and {}", problem.into()),
        })
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.heard.add(buffer.filled().len() - before);
        read
    }
}

impl AsyncWrite for CountedStream {
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
