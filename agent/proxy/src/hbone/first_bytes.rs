//! The first bytes of a connection, which go with its CONNECT instead of a round trip later.
//!
//! They are read without being taken from the client's socket, so that they are still there if the
//! destination has not looked at the stream and another one is opened. Once the destination has accepted
//! the stream, they are taken.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::task::{Context, Poll, ready};

use ambit_tunnel::Stream;
use socket2::SockRef;
use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;

/// The most bytes that are sent before the answer. The destination holds them until its verdict; this is
/// what it lets every stream send.
const MOST: usize = 16 << 10;

/// What a client sent before its connection stands.
#[derive(Debug)]
pub(crate) struct FirstBytes<'a> {
    client: Option<&'a TcpStream>,
    sent: Cell<usize>,
}

impl<'a> FirstBytes<'a> {
    /// For a connection that has no client's socket, or whose peer takes nothing before its answer.
    pub(crate) const fn none() -> Self {
        Self {
            client: None,
            sent: Cell::new(0),
        }
    }

    pub(crate) const fn of(client: &'a TcpStream) -> Self {
        Self {
            client: Some(client),
            sent: Cell::new(0),
        }
    }

    #[cfg(test)]
    pub(crate) const fn having_sent(bytes: usize) -> Self {
        Self {
            client: None,
            sent: Cell::new(bytes),
        }
    }

    /// Nothing has been sent with the CONNECT that comes next.
    pub(crate) fn begin(&self) {
        self.sent.set(0);
    }

    /// How many were sent with the last CONNECT.
    pub(crate) fn sent(&self) -> usize {
        self.sent.get()
    }

    /// Sends what the client sends, once. Never resolves: what is awaited is the answer.
    pub(super) async fn send(&self, stream: &Stream) {
        if let Some(client) = self.client {
            let mut look = Look::AtOnce;
            let sent = poll_fn(|context| poll_send(client, stream, &mut look, context)).await;
            self.sent.set(sent);
        }
        pending().await
    }

    /// Takes what was sent from the client's socket.
    ///
    /// # Errors
    /// If the client's connection is broken.
    pub(crate) async fn take(&self) -> io::Result<usize> {
        let Some(client) = self.client else {
            return Ok(0);
        };
        let mut left = self.sent.get();
        while left > 0 {
            client.readable().await?;
            match discard(client, left) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(taken) => left -= taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.sent.get())
    }
}

/// When the client's socket is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Look {
    /// The bytes may be there although the runtime has not heard of them. They go in one write with the CONNECT
    /// then.
    AtOnce,
    WhenReadable,
}

/// Sends what the client has sent, and returns how much that was. The bytes are on the stack only while this
/// runs: a connection that waits has no buffer.
fn poll_send(
    client: &TcpStream,
    stream: &Stream,
    look: &mut Look,
    context: &mut Context<'_>,
) -> Poll<usize> {
    let mut bytes = [const { MaybeUninit::uninit() }; MOST];
    let mut first = ReadBuf::uninit(&mut bytes);
    if *look == Look::AtOnce && !peek(client, &mut first) {
        *look = Look::WhenReadable;
    }
    if *look == Look::WhenReadable {
        // If the client has left, whoever reads next finds out.
        if ready!(client.poll_read_ready(context)).is_err() {
            return Poll::Ready(0);
        }
        match ready!(client.poll_peek(context, &mut first)) {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Poll::Ready(0),
        }
    }
    let parts = [IoSlice::new(first.filled())];
    stream
        .poll_send(context, &parts)
        .map(|sent| sent.unwrap_or(0))
}

/// Whether there are bytes at this moment.
fn peek(client: &TcpStream, into: &mut ReadBuf<'_>) -> bool {
    // SAFETY: nothing is de-initialized: `recv` only writes.
    let peeked = SockRef::from(client).peek(unsafe { into.unfilled_mut() });
    let length = peeked.unwrap_or(0);
    // SAFETY: the kernel has written so many bytes to the beginning.
    unsafe { into.assume_init(length) };
    into.advance(length);
    length > 0
}

fn discard(client: &TcpStream, most: usize) -> io::Result<usize> {
    let mut bytes = [const { MaybeUninit::uninit() }; MOST];
    let most = most.min(MOST);
    client.try_io(Interest::READABLE, || {
        SockRef::from(client).recv(&mut bytes[..most])
    })
}
