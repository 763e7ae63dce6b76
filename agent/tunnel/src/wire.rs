//! What carries a tunnel's bytes: TLS over a socket.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ambit_tls::{LARGEST_RECORD, Opened, Outbox, RecordFailure, Records, Split, split};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::failure::TunnelFailure;
use crate::spare;

/// The most that one system call reads.
const READ: usize = 256 << 10;

/// How many records are handed over at once.
const BATCH: usize = 32;

thread_local! {
    /// Room for the beginning of a record that came before, and for what is read after it. One for each thread,
    /// so that a tunnel that is at rest has none.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a socket gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// Something.
    Bytes,
    /// The end.
    End,
}

/// Takes what has come, in pieces.
pub type Take<'a> = dyn FnMut(&[&[u8]]) -> Result<(), TunnelFailure> + 'a;

/// Carries a tunnel's bytes, in the clear on this side.
pub trait Wire {
    /// Reads once, and hands what came to `take`, in pieces.
    ///
    /// # Errors
    /// If the network, TLS or `take` fails.
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        take: &mut Take<'_>,
    ) -> Poll<Result<Received, TunnelFailure>>;

    /// Takes bytes to be sent. [`Wire::poll_flush`] sends them.
    ///
    /// # Errors
    /// If TLS fails.
    fn send(&mut self, plaintext: BytesMut) -> io::Result<()>;

    /// Sends what was taken.
    ///
    /// # Errors
    /// If the network fails.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Tells the peer that nothing more comes, if there is room for that.
    fn close(&mut self, context: &mut Context<'_>);

    /// Keeps the kernel from taking more than about `bytes` ahead of what it sends.
    fn limit_unsent(&self, bytes: usize);
}

/// A socket under TLS.
pub trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// See [`Wire::limit_unsent`].
    fn limit_unsent(&self, bytes: usize);
}

impl Socket for TcpStream {
    fn limit_unsent(&self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        // Without it, small requests wait longer beside large ones.
        let _ = socket2::SockRef::from(self).set_tcp_notsent_lowat(bytes);
    }
}

/// TLS over a socket, after the handshake.
pub struct TlsWire<S> {
    socket: S,
    records: Records,
    outbox: Outbox,
    /// What came with the end of the handshake.
    early: Vec<u8>,
    /// The beginning of a record, without room for more: most connections wait for most of their time.
    partial: Vec<u8>,
}

/// Records that were opened where they were read.
struct Batch<'a> {
    pieces: [&'a [u8]; BATCH],
    filled: usize,
}

impl<'a> Batch<'a> {
    const fn new() -> Self {
        Self {
            pieces: [&[]; BATCH],
            filled: 0,
        }
    }

    fn push(&mut self, piece: &'a [u8], take: &mut Take<'_>) -> Result<(), TunnelFailure> {
        if self.filled == BATCH {
            self.hand_over(take)?;
        }
        self.pieces[self.filled] = piece;
        self.filled += 1;
        Ok(())
    }

    fn hand_over(&mut self, take: &mut Take<'_>) -> Result<(), TunnelFailure> {
        let filled = std::mem::take(&mut self.filled);
        if filled == 0 {
            return Ok(());
        }
        take(&self.pieces[..filled])
    }
}

impl<S: Socket> TlsWire<S> {
    /// Goes on after a handshake. `early` came with its end.
    pub fn new(socket: S, records: Records, early: Vec<u8>) -> Self {
        Self {
            socket,
            records,
            outbox: Outbox::default(),
            early,
            partial: Vec::new(),
        }
    }

    #[cfg(test)]
    pub(crate) fn socket(&mut self) -> &mut S {
        &mut self.socket
    }

    /// Opens the complete records of `input`, and keeps what is left.
    fn open(
        &mut self,
        mut input: &mut [u8],
        take: &mut Take<'_>,
    ) -> Result<Received, TunnelFailure> {
        let mut batch = Batch::new();
        let ended = loop {
            let (sealed, rest) = match split(input) {
                Ok(Split::Record(sealed, rest)) => (sealed, rest),
                Ok(Split::Partial(rest)) => {
                    self.partial = rest.to_vec();
                    break Ok(Received::Bytes);
                }
                Err(failure) => break Err(failure),
            };
            input = rest;
            match self.records.open(sealed) {
                Ok(Opened::Data(data)) => batch.push(data, take)?,
                Ok(Opened::Nothing) => {}
                Ok(Opened::End) => break Ok(Received::End),
                Err(failure) => break Err(failure),
            }
        };
        // What came before a failure is delivered.
        batch.hand_over(take)?;
        ended.map_err(|failure| self.failed(failure).into())
    }

    fn failed(&mut self, failure: RecordFailure) -> io::Error {
        self.records.fail(&failure, &mut self.outbox);
        io::Error::new(io::ErrorKind::InvalidData, failure)
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            let socket = Pin::new(&mut self.socket);
            let write =
                |pieces: &[io::IoSlice<'_>]| match socket.poll_write_vectored(context, pieces) {
                    Poll::Ready(written) => written,
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                };
            match self.outbox.write(write) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => self.outbox.took(written, spare::give),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.outbox.wait(spare::give);
                    return Poll::Pending;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Socket> Wire for TlsWire<S> {
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        take: &mut Take<'_>,
    ) -> Poll<Result<Received, TunnelFailure>> {
        if !self.early.is_empty() {
            let mut early = std::mem::take(&mut self.early);
            return Poll::Ready(self.open(&mut early, take));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(LARGEST_RECORD + READ, 0);
            let mut buffer = ReadBuf::new(&mut scratch[LARGEST_RECORD..]);
            ready!(Pin::new(&mut self.socket).poll_read(context, &mut buffer))?;
            let end = LARGEST_RECORD + buffer.filled().len();
            if end == LARGEST_RECORD {
                return Poll::Ready(Ok(Received::End));
            }
            let partial = std::mem::take(&mut self.partial);
            let start = LARGEST_RECORD - partial.len();
            scratch[start..LARGEST_RECORD].copy_from_slice(&partial);
            Poll::Ready(self.open(&mut scratch[start..end], take))
        })
    }

    fn send(&mut self, plaintext: BytesMut) -> io::Result<()> {
        let sealed = self.records.seal(plaintext, &mut self.outbox);
        sealed.map_err(|failure| self.failed(failure))
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write(context)
    }

    fn close(&mut self, context: &mut Context<'_>) {
        self.records.close(&mut self.outbox);
        // The peer sees the end of the stream in any case.
        let _ = self.poll_write(context);
    }

    fn limit_unsent(&self, bytes: usize) {
        self.socket.limit_unsent(bytes);
    }
}

/// A wire without TLS, for tests: its bytes are seen as they are.
#[cfg(any(test, feature = "testing"))]
pub struct PlainWire<S> {
    socket: S,
    outgoing: BytesMut,
}

#[cfg(any(test, feature = "testing"))]
impl<S> PlainWire<S> {
    /// Over a stream of bytes.
    pub fn new(socket: S) -> Self {
        Self {
            socket,
            outgoing: BytesMut::new(),
        }
    }
}

#[cfg(any(test, feature = "testing"))]
impl<S: AsyncRead + AsyncWrite + Unpin> Wire for PlainWire<S> {
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        take: &mut Take<'_>,
    ) -> Poll<Result<Received, TunnelFailure>> {
        let mut scratch = [0; 16 << 10];
        let mut buffer = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut buffer))?;
        match buffer.filled() {
            [] => Poll::Ready(Ok(Received::End)),
            filled => Poll::Ready(take(&[filled]).map(|()| Received::Bytes)),
        }
    }

    fn send(&mut self, plaintext: BytesMut) -> io::Result<()> {
        self.outgoing.extend_from_slice(&plaintext);
        Ok(())
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let written = Pin::new(&mut self.socket).poll_write(context, &self.outgoing);
            bytes::Buf::advance(&mut self.outgoing, ready!(written)?);
        }
        Poll::Ready(Ok(()))
    }

    fn close(&mut self, _: &mut Context<'_>) {}

    fn limit_unsent(&self, _: usize) {}
}
