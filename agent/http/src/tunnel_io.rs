//! A CONNECT stream as a stream of bytes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client::Downstream;
use ambit_relay::CloseMode;
use ambit_relay::{StreamLease, Tunnel};

/// The most bytes that are reserved for sending.
const CHUNK: usize = 64 << 10;

/// A tunnel to read and write. If it is dropped before its sending side was shut down, its peer sees
/// a reset (CANCEL).
///
/// Bytes that arrive while nothing reads are kept here, since h2 closes a connection on which too
/// many small frames wait. They are bounded by the stream's window, which is released only for bytes
/// that were read.
#[derive(Debug)]
pub struct TunnelIo {
    send: SendStream<Bytes>,
    receive: RecvStream,
    #[expect(dead_code, reason = "dropping it releases the stream's place")]
    lease: Option<StreamLease>,
    waiting: BytesMut,
    receiving: Receiving,
    close: CloseMode,
}

/// The state of the peer's sending side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Receiving {
    Open,
    Ended,
    Reset,
}

impl TunnelIo {
    /// A stream of the bytes in `tunnel`.
    pub fn new(tunnel: Tunnel) -> Self {
        let Tunnel {
            send,
            receive,
            lease,
        } = tunnel;
        Self {
            send,
            receive,
            lease,
            waiting: BytesMut::new(),
            receiving: Receiving::Open,
            close: CloseMode::Reset,
        }
    }

    /// Waits until something may be sent, and returns how many bytes.
    fn poll_room(&mut self, context: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        if self.send.poll_reset(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        self.send.reserve_capacity(wanted.min(CHUNK));
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        Poll::Ready(Ok(self.send.capacity().min(wanted)))
    }

    fn send(&mut self, data: Bytes, is_last: bool) -> io::Result<()> {
        self.send
            .send_data(data, is_last)
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Drop for TunnelIo {
    fn drop(&mut self) {
        if self.close == CloseMode::Reset {
            self.send.send_reset(h2::Reason::CANCEL);
        }
    }
}

impl Downstream for TunnelIo {
    fn set_close(&mut self, close: CloseMode) {
        self.close = close;
    }

    fn poll_ahead(&mut self, context: &mut Context<'_>) {
        while self.receiving == Receiving::Open
            && let Poll::Ready(data) = self.receive.poll_data(context)
        {
            match data {
                Some(Ok(data)) => self.waiting.extend_from_slice(&data),
                Some(Err(_)) => self.receiving = Receiving::Reset,
                None => self.receiving = Receiving::Ended,
            }
        }
    }

    fn poll_broken(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.receiving {
            Receiving::Reset => Poll::Ready(()),
            Receiving::Open | Receiving::Ended => self.send.poll_reset(context).map(|_| ()),
        }
    }
}

impl AsyncRead for TunnelIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_ahead(context);
        if self.waiting.is_empty() {
            return match self.receiving {
                Receiving::Open => Poll::Pending,
                Receiving::Ended => Poll::Ready(Ok(())),
                Receiving::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            };
        }
        let length = self.waiting.len().min(buffer.remaining());
        buffer.put_slice(&self.waiting[..length]);
        self.waiting.advance(length);
        if self.waiting.is_empty() {
            self.waiting = BytesMut::new();
        }
        // A stream that has been reset in the meantime has no window.
        let _ = self.receive.flow_control().release_capacity(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_room(context, data.len()))?;
        self.send(Bytes::copy_from_slice(&data[..room]), false)?;
        Poll::Ready(Ok(room))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wanted = parts.iter().map(|part| part.len()).sum();
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_room(context, wanted))?;
        let mut gathered = BytesMut::with_capacity(room);
        for part in parts {
            let length = part.len().min(room - gathered.len());
            gathered.extend_from_slice(&part[..length]);
        }
        self.send(gathered.freeze(), false)?;
        Poll::Ready(Ok(room))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send(Bytes::new(), true))
    }
}
