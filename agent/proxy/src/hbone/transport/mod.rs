//! The byte stream under a tunnel's TLS: reads ahead, and gathers what is written.
//!
//! TLS reads a few KiB at a time, and HTTP/2 flushes after every frame. A system call for each would
//! cost more than the encryption. So one read takes everything that has come, and a flush sends nothing:
//! once per turn, [`Transport::sending`] sends what the future that it drives has written.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// How much one read takes. The buffer is freed when it is empty, so that an idle tunnel has none.
const READ_AHEAD: usize = 128 << 10;

/// How much is gathered before it is sent even within a turn.
const GATHER: usize = 128 << 10;

/// A stream that its clones share: TLS owns one, and [`Transport::sending`] uses another.
#[derive(Debug)]
pub(crate) struct Transport<S>(Rc<RefCell<Buffered<S>>>);

#[derive(Debug)]
struct Buffered<S> {
    stream: S,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// A failure to send, which the next write or flush returns.
    failed: Option<io::ErrorKind>,
}

impl<S> Clone for Transport<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self(Rc::new(RefCell::new(Buffered {
            stream,
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            failed: None,
        })))
    }

    /// Drives a future that reads and writes this stream, and sends what it has written each time that it
    /// has been polled. The next such future on this stream sends what cannot be sent yet.
    pub(crate) async fn sending<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| {
            let mut done = future.as_mut().poll(context);
            let sent = self.0.borrow_mut().poll_send(context);
            if done.is_pending()
                && let Poll::Ready(Err(error)) = sent
            {
                self.0.borrow_mut().failed = Some(error.kind());
                done = future.as_mut().poll(context);
            }
            done
        })
        .await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Buffered<S> {
    /// Reads what has come. Called when the buffer is empty.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.incoming.reserve(READ_AHEAD);
        let stream = Pin::new(&mut self.stream);
        let read = poll_read_buf(stream, context, &mut self.incoming);
        if self.incoming.is_empty() {
            self.incoming = BytesMut::new();
        }
        read.map_ok(|_length| ())
    }

    /// Makes room for a write.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.failure()?;
        if self.outgoing.len() < GATHER {
            return Poll::Ready(Ok(()));
        }
        self.poll_send(context)
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let stream = Pin::new(&mut self.stream);
            let sent = ready!(stream.poll_write(context, &self.outgoing))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(sent);
        }
        self.outgoing = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    fn failure(&self) -> io::Result<()> {
        self.failed.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Transport<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self.0.borrow_mut();
        if this.incoming.is_empty() {
            ready!(this.poll_fill(context))?;
        }
        let length = this.incoming.len().min(buffer.remaining());
        buffer.put_slice(&this.incoming[..length]);
        this.incoming.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self.0.borrow_mut();
        ready!(this.poll_room(context))?;
        this.outgoing.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self.0.borrow_mut();
        ready!(this.poll_room(context))?;
        let before = this.outgoing.len();
        for part in parts {
            this.outgoing.extend_from_slice(part);
        }
        Poll::Ready(Ok(this.outgoing.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Sends nothing: see [`Transport::sending`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.borrow().failure())
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self.0.borrow_mut();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
