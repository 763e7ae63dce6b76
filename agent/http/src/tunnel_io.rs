//! A CONNECT stream as a stream of bytes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use ambit_relay::{Ahead, CloseMode, Meter, Party, RelayEnd, relay};
use ambit_tunnel::{ErrorCode, Stream, StreamFailure};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::downstream::Downstream;

/// A tunnel's stream to read and write. If it is dropped before its sending side was shut down, its peer
/// sees a reset.
#[derive(Debug)]
pub struct TunnelIo {
    stream: Stream,
}

impl TunnelIo {
    /// A stream of the bytes in a tunnel.
    pub const fn new(stream: Stream) -> Self {
        Self { stream }
    }
}

impl Downstream for TunnelIo {
    fn set_close(&mut self, close: CloseMode) {
        self.stream.on_drop(match close {
            CloseMode::Reset => ErrorCode::CANCEL,
            // What the peer still sends is not needed.
            CloseMode::Orderly => ErrorCode::NO_ERROR,
        });
    }

    fn poll_broken(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_broken(context).map(|_| ())
    }

    async fn reset_in_order(self) {
        self.stream.reset(ErrorCode::CONNECT_ERROR);
    }

    async fn relay(
        self,
        application: TcpStream,
        ahead: Ahead,
        meter: &Meter,
        has_closed: impl Fn(Party, &TcpStream) -> bool,
    ) -> RelayEnd {
        self.stream.on_drop(ErrorCode::CANCEL);
        let has_closed = |socket: &TcpStream| has_closed(Party::Server, socket);
        relay(
            application,
            self.stream,
            Party::Server,
            ahead,
            meter,
            has_closed,
        )
        .await
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
