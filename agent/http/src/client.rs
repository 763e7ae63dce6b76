//! The client's connection, which its readers and writers share.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::downstream::Downstream;
use ambit_relay::CloseMode;

/// Bytes of the buffer for bytes that are read and discarded.
const UNREAD: usize = 8 << 10;

/// A client's connection, which its clones share. The stream has to be one that is reset when it is
/// dropped; once the sending side has been shut down, dropping it is an orderly end.
#[derive(Debug)]
pub(super) struct Client<D>(Rc<RefCell<Shared<D>>>);

#[derive(Debug)]
struct Shared<D> {
    stream: D,
    /// Bytes that were read to find out the protocol, and are to be read again.
    before: Bytes,
    sending: Sending,
}

/// The state of the sending side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sending {
    Open,
    /// It has been shut down, which a tunnel's stream takes only once.
    Ended,
}

impl<D> Clone for Client<D> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<D: Downstream> Client<D> {
    /// A connection from which `before` has been read already.
    pub(super) fn new(stream: D, before: BytesMut) -> Self {
        Self(Rc::new(RefCell::new(Shared {
            stream,
            before: before.freeze(),
            sending: Sending::Open,
        })))
    }

    /// Returns the stream. `None` if there are other clones.
    pub(super) fn into_stream(self) -> Option<D> {
        Rc::into_inner(self.0).map(|shared| shared.into_inner().stream)
    }

    /// Lets the client see a reset as soon as the connection is dropped, even after the sending side has been shut
    /// down.
    pub(super) fn abort(&self) {
        self.0.borrow_mut().stream.set_close(CloseMode::Reset);
    }

    /// Resolves when the client has broken off, also while nothing is read, if the layer below can tell.
    pub(super) async fn broken(&self) {
        poll_fn(|context| self.0.borrow_mut().stream.poll_broken(context)).await;
    }

    /// Ends the connection in order: nothing more is sent, and bytes are read and discarded until the
    /// client hangs up. A reset because of unread bytes could overtake the last response.
    pub(super) async fn end(mut self) {
        if self.shutdown().await.is_err() {
            return;
        }
        let mut unread = BytesMut::with_capacity(UNREAD);
        while let Ok(1..) = self.read_buf(&mut unread).await {
            unread.clear();
        }
    }

    fn with<T>(&self, poll: impl FnOnce(Pin<&mut D>) -> T) -> T {
        poll(Pin::new(&mut self.0.borrow_mut().stream))
    }
}

impl<D: Downstream> AsyncRead for Client<D> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Shared { stream, before, .. } = &mut *self.0.borrow_mut();
        if before.is_empty() {
            return Pin::new(stream).poll_read(context, buffer);
        }
        let length = before.len().min(buffer.remaining());
        buffer.put_slice(&before[..length]);
        before.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<D: Downstream> AsyncWrite for Client<D> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write(context, data))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Shared {
            stream, sending, ..
        } = &mut *self.0.borrow_mut();
        if *sending == Sending::Ended {
            return Poll::Ready(Ok(()));
        }
        let shut = Pin::new(&mut *stream).poll_shutdown(context);
        if let Poll::Ready(Ok(())) = shut {
            stream.set_close(CloseMode::Orderly);
            *sending = Sending::Ended;
        }
        shut
    }
}
