//! Reading and writing a connection so that its break-off is never taken for its end.
//!
//! The kernel reports an error once. If a write has met it, the next read finds the end of the stream instead.

use std::borrow::Borrow;
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A connection that is read and written, owned or borrowed.
#[derive(Debug)]
pub struct Socket<S> {
    stream: S,
    /// A write has failed with an error that a read would have reported.
    error_taken: Cell<bool>,
}

impl<S: Borrow<TcpStream>> Socket<S> {
    /// Reads and writes this connection.
    pub const fn new(stream: S) -> Self {
        Self {
            stream,
            error_taken: Cell::new(false),
        }
    }

    /// Returns the connection.
    pub fn stream(&self) -> &TcpStream {
        self.stream.borrow()
    }

    /// Reads once into `buffer`; 0 at the end. After a short read it is known that nothing is left, and no second
    /// one is tried.
    pub(crate) fn try_recv(&self, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        let room = buffer.len();
        let mut length = 0;
        let read = self.stream().try_io(Interest::READABLE, || {
            length = SockRef::from(self.stream()).recv(buffer)?;
            match length {
                0 => Ok(()),
                short if short < room => Err(io::ErrorKind::WouldBlock.into()),
                _ => Ok(()),
            }
        });
        match read {
            _ if length > 0 => Ok(length),
            Ok(()) if self.error_taken.get() => Err(io::ErrorKind::ConnectionReset.into()),
            ended => ended.map(|()| 0),
        }
    }

    pub(crate) fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = match parts {
            [part] => self.stream().try_write(part),
            parts => self.stream().try_write_vectored(parts),
        };
        written.inspect_err(|error| self.note(error))
    }

    /// Notes how a write has failed.
    fn note(&self, error: &io::Error) {
        match error.kind() {
            // After a FIN, Linux reports a reset as EPIPE, and the end can still be read.
            io::ErrorKind::WouldBlock | io::ErrorKind::BrokenPipe => {}
            _ => self.error_taken.set(true),
        }
    }

    /// Ends the sending.
    pub(crate) fn shutdown(&self) -> io::Result<()> {
        SockRef::from(self.stream()).shutdown(Shutdown::Write)
    }

    /// Resolves when the connection has broken off. The error is left to whoever reads or writes.
    pub async fn failed(&self) {
        let _ = self.stream().ready(Interest::ERROR).await;
    }
}

impl<S: Borrow<TcpStream>> AsyncRead for &Socket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream().poll_read_ready(context))?;
            // SAFETY: nothing is de-initialized: `recv` only writes.
            let unfilled = unsafe { buffer.unfilled_mut() };
            match self.try_recv(unfilled) {
                Ok(length) => {
                    // SAFETY: the kernel has written so many bytes to the beginning.
                    unsafe { buffer.assume_init(length) };
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl<S: Borrow<TcpStream>> AsyncWrite for &Socket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream().poll_write_ready(context))?;
            match self.try_write_vectored(parts) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown())
    }
}
