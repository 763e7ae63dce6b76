//! A connection to one of the two parties, read and written so that no break-off passes for an end in order.

use std::cell::Cell;
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::coop::consume_budget;

use crate::{CHUNK, CloseMode, SMALL, on_close};

/// A connection to one of the two parties. Reading and writing let other tasks run from time to time, as
/// tokio's own do. Until it is told otherwise, dropping it resets it.
pub(crate) struct Side {
    pub(crate) stream: TcpStream,
    /// A write has failed with the error that a read would have reported. Linux reports an error once, and the
    /// next read shows an end.
    error_taken: Cell<bool>,
}

impl Side {
    pub(crate) fn new(stream: TcpStream) -> Self {
        on_close(&stream, CloseMode::Reset);
        Self {
            stream,
            error_taken: Cell::new(false),
        }
    }

    /// Reads what has arrived, also before a break-off; `None` at an end in order.
    ///
    /// # Errors
    /// If the connection broke off and everything has been read.
    pub(crate) async fn read(&self) -> io::Result<Option<Bytes>> {
        loop {
            consume_budget().await;
            self.stream.readable().await?;
            match read_once(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(None) if self.error_taken.get() => {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                read => return read,
            }
        }
    }

    /// Writes all of it, and counts what was written.
    ///
    /// # Errors
    /// If nothing can be written any more. What had arrived before can still be read.
    pub(crate) async fn write_all(&self, mut chunk: Bytes, count: &Cell<u64>) -> io::Result<()> {
        while !chunk.is_empty() {
            consume_budget().await;
            match self.stream.try_write(&chunk) {
                Ok(written) => {
                    count.set(count.get() + written as u64);
                    chunk.advance(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stream.writable().await?;
                }
                Err(error) => {
                    // After a FIN, Linux reports a reset as EPIPE, and the end can still be read.
                    if error.kind() != io::ErrorKind::BrokenPipe {
                        self.error_taken.set(true);
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Resolves when the connection has failed. The error is left to a read or write.
    pub(crate) async fn failed(&self) {
        let _ = self.stream.ready(Interest::ERROR).await;
    }
}

/// Reads once. After a short read it is known that nothing is left, and no second one is tried.
fn read_once(stream: &TcpStream) -> io::Result<Option<Bytes>> {
    let mut buffer = BytesMut::with_capacity(CHUNK);
    let mut length = 0;
    let read = stream.try_io(Interest::READABLE, || {
        length = SockRef::from(stream).recv(buffer.spare_capacity_mut())?;
        match length {
            1..CHUNK => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    });
    if length == 0 {
        return read.map(|()| None);
    }
    // SAFETY: the kernel has written so many bytes to the beginning of the buffer.
    unsafe { buffer.set_len(length) };
    Ok(Some(match length {
        // A few bytes would keep the whole buffer allocated while they wait to be sent.
        ..SMALL => Bytes::copy_from_slice(&buffer),
        _ => buffer.freeze(),
    }))
}
