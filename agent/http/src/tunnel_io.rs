//! A CONNECT stream as a stream of bytes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use ambit_relay::CloseMode;
use ambit_tunnel::{ErrorCode, Stream, StreamFailure};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client::Downstream;

/// A tunnel's stream to read and write. If it is dropped before its sending side was shut down, its peer
/// sees a reset: after what was sent, unless the stream is [cut](Downstream::set_close).
#[derive(Debug)]
pub struct TunnelIo {
    stream: Stream,
    close: CloseMode,
}

impl TunnelIo {
    /// A stream of the bytes in a tunnel.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            close: CloseMode::Reset,
        }
    }
}

impl Drop for TunnelIo {
    fn drop(&mut self) {
        self.stream.reset(match self.close {
            CloseMode::Reset => ErrorCode::CANCEL,
            // What the peer still sends is not needed.
            CloseMode::Orderly => ErrorCode::NO_ERROR,
        });
    }
}

impl Downstream for TunnelIo {
    fn set_close(&mut self, close: CloseMode) {
        self.close = close;
    }

    fn poll_broken(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_broken(context).map(|_| ())
    }
}

impl AsyncRead for TunnelIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.stream.poll_read(context, buffer);
        read.map_err(|failure| broken(io::ErrorKind::ConnectionReset, failure))
    }
}

impl AsyncWrite for TunnelIo {
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
        if parts.iter().all(|part| part.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let sent = self.stream.poll_send(context, parts);
        sent.map_err(|failure| broken(io::ErrorKind::BrokenPipe, failure))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.finish();
        Poll::Ready(Ok(()))
    }
}

fn broken(kind: io::ErrorKind, failure: StreamFailure) -> io::Error {
    io::Error::new(kind, failure)
}
