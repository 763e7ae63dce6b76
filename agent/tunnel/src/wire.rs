//! What carries a tunnel's bytes: TLS over a socket.

use std::cell::RefCell;
use std::io::{self, BufRead, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::failure::TunnelFailure;

/// The most that one system call reads.
const READ: usize = 256 << 10;

thread_local! {
    /// What was just read. One for each thread, so that a tunnel that is at rest has none.
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

/// Carries a tunnel's bytes, in the clear on this side.
pub trait Wire {
    /// Reads once, and hands what came to `take`.
    ///
    /// # Errors
    /// If the network, TLS or `take` fails.
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]) -> Result<(), TunnelFailure>,
    ) -> Poll<Result<Received, TunnelFailure>>;

    /// Takes bytes to be sent. [`Wire::poll_flush`] sends them.
    ///
    /// # Errors
    /// If TLS fails.
    fn send(&mut self, plaintext: &[u8]) -> io::Result<()>;

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
    session: Connection,
}

impl<S: Socket> TlsWire<S> {
    /// Goes on with a session whose handshake is done.
    pub fn new(socket: S, session: impl Into<Connection>) -> Self {
        let mut session = session.into();
        // The session's own limits count what this side bounds already.
        session.set_buffer_limit(None);
        Self { socket, session }
    }

    /// Hands over what TLS has decrypted.
    fn take_plaintext(
        &mut self,
        take: &mut dyn FnMut(&[u8]) -> Result<(), TunnelFailure>,
    ) -> Result<Received, TunnelFailure> {
        loop {
            let mut reader = self.session.reader();
            let length = match reader.fill_buf() {
                Ok([]) => return Ok(Received::End),
                Ok(plaintext) => {
                    take(plaintext)?;
                    plaintext.len()
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Received::Bytes);
                }
                Err(error) => return Err(error.into()),
            };
            reader.consume(length);
        }
    }

    fn decrypt(
        &mut self,
        mut input: &[u8],
        take: &mut dyn FnMut(&[u8]) -> Result<(), TunnelFailure>,
    ) -> Result<Received, TunnelFailure> {
        let mut received = Received::Bytes;
        while !input.is_empty() && received == Received::Bytes {
            self.session.read_tls(&mut input)?;
            self.session
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            received = self.take_plaintext(take)?;
        }
        Ok(received)
    }
}

impl<S: Socket> Wire for TlsWire<S> {
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]) -> Result<(), TunnelFailure>,
    ) -> Poll<Result<Received, TunnelFailure>> {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(READ, 0);
            let mut buffer = ReadBuf::new(scratch);
            let read = Pin::new(&mut self.socket).poll_read(context, &mut buffer);
            ready!(read)?;
            let filled = buffer.filled().len();
            Poll::Ready(match filled {
                0 => Ok(Received::End),
                _ => self.decrypt(&scratch[..filled], take),
            })
        })
    }

    fn send(&mut self, plaintext: &[u8]) -> io::Result<()> {
        self.session.writer().write_all(plaintext)
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            let mut output = Output {
                socket: &mut self.socket,
                context,
            };
            match self.session.write_tls(&mut output) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn close(&mut self, context: &mut Context<'_>) {
        self.session.send_close_notify();
        // The peer sees the end of the stream in any case.
        let _ = self.poll_flush(context);
    }

    fn limit_unsent(&self, bytes: usize) {
        self.socket.limit_unsent(bytes);
    }
}

/// A socket as TLS writes to it.
struct Output<'a, 'b, S> {
    socket: &'a mut S,
    context: &'a mut Context<'b>,
}

impl<S: Socket> Output<'_, '_, S> {
    fn written(poll: Poll<io::Result<usize>>) -> io::Result<usize> {
        match poll {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<S: Socket> Write for Output<'_, '_, S> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Self::written(Pin::new(&mut *self.socket).poll_write(self.context, data))
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Self::written(Pin::new(&mut *self.socket).poll_write_vectored(self.context, parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A wire without TLS, for tests: its bytes are seen as they are.
#[cfg(any(test, feature = "testing"))]
pub struct PlainWire<S> {
    socket: S,
    outgoing: bytes::BytesMut,
}

#[cfg(any(test, feature = "testing"))]
impl<S> PlainWire<S> {
    /// Over a stream of bytes.
    pub fn new(socket: S) -> Self {
        Self {
            socket,
            outgoing: bytes::BytesMut::new(),
        }
    }
}

#[cfg(any(test, feature = "testing"))]
impl<S: AsyncRead + AsyncWrite + Unpin> Wire for PlainWire<S> {
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]) -> Result<(), TunnelFailure>,
    ) -> Poll<Result<Received, TunnelFailure>> {
        let mut scratch = [0; 16 << 10];
        let mut buffer = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut buffer))?;
        match buffer.filled() {
            [] => Poll::Ready(Ok(Received::End)),
            filled => Poll::Ready(take(filled).map(|()| Received::Bytes)),
        }
    }

    fn send(&mut self, plaintext: &[u8]) -> io::Result<()> {
        self.outgoing.extend_from_slice(plaintext);
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
