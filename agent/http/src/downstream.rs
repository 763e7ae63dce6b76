//! What carries a client's connection: a TCP connection, a stream in a tunnel, or the agent's own.
#![expect(
    async_fn_in_trait,
    reason = "a connection's futures never leave the thread of its shard"
)]

use std::io;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, split};
use tokio::net::TcpStream;

use super::progress::PumpError;
use ambit_relay::{
    Ahead, CloseMode, Meter, Party, RelayEnd, Socket, drain_then, on_close, relay_tcp,
};

/// One read of what the agent sends to itself.
const CHUNK: usize = 8 << 10;

/// A stream of bytes that carries a client's connection.
pub trait Downstream: AsyncRead + AsyncWrite + Unpin {
    /// Sets what the client sees when this is dropped. A reset overtakes what was sent.
    fn set_close(&mut self, close: CloseMode);

    /// Resolves when the client has broken off, also while nothing is read, if the layer below can tell.
    fn poll_broken(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Resets the connection, once the client has all that was sent to it.
    async fn reset_in_order(self)
    where
        Self: Sized;

    /// Relays bytes between the client and the application, until both directions have ended. What was read
    /// `ahead` goes first. Dropping this resets both sides at once.
    ///
    /// `has_closed` says whether a party has closed its socket; `false` if that cannot be known.
    async fn relay(
        self,
        application: TcpStream,
        ahead: Ahead,
        meter: &Meter,
        has_closed: impl Fn(Party, &TcpStream) -> bool,
    ) -> RelayEnd
    where
        Self: Sized;
}

impl Downstream for TcpStream {
    fn set_close(&mut self, close: CloseMode) {
        on_close(self, close);
    }

    /// Never: a reset shows when the connection is read, or, behind its end, when it is written.
    fn poll_broken(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    async fn reset_in_order(self) {
        let drained = drain_then(&self, CloseMode::Reset).await;
        tracing::debug!(?drained, "a client's connection is reset");
    }

    async fn relay(
        self,
        application: TcpStream,
        ahead: Ahead,
        meter: &Meter,
        has_closed: impl Fn(Party, &TcpStream) -> bool,
    ) -> RelayEnd {
        relay_tcp(self, application, ahead, meter, has_closed).await
    }
}

/// The agent's own connections, for its own requests. They end when they are dropped.
impl Downstream for DuplexStream {
    fn set_close(&mut self, _: CloseMode) {}

    fn poll_broken(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    async fn reset_in_order(self) {}

    /// What the application sent before it broke off may be lost: the agent takes only whole answers.
    async fn relay(
        self,
        application: TcpStream,
        ahead: Ahead,
        meter: &Meter,
        _: impl Fn(Party, &TcpStream) -> bool,
    ) -> RelayEnd {
        on_close(&application, CloseMode::Reset);
        let application = Socket::new(application);
        let (from_agent, to_agent) = split(self);
        let Ahead {
            from_client,
            from_server,
        } = ahead;
        let sent = |bytes| meter.add_sent(bytes);
        let received = |bytes| meter.add_received(bytes);
        let relayed = tokio::try_join!(
            async {
                let copied = copy(from_agent, &application, from_client, sent).await;
                copied.map_err(|error| end_of(&error, Party::Client))
            },
            async {
                let copied = copy(&application, to_agent, from_server, received).await;
                copied.map_err(|error| end_of(&error, Party::Server))
            },
        );
        match relayed {
            Ok(_) => {
                on_close(application.stream(), CloseMode::Orderly);
                RelayEnd::Orderly
            }
            Err(end) => end,
        }
    }
}

/// Copies `first`, and then what comes.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    first: Bytes,
    count: impl Fn(u64),
) -> Result<(), PumpError<io::Error, io::Error>> {
    let mut chunk = BytesMut::from(first);
    loop {
        to.write_all(&chunk).await.map_err(PumpError::Sink)?;
        count(chunk.len() as u64);
        chunk.clear();
        chunk.reserve(CHUNK);
        let read = from.read_buf(&mut chunk).await;
        if read.map_err(PumpError::Source)? == 0 {
            return to.shutdown().await.map_err(PumpError::Sink);
        }
    }
}

/// How a connection ended of which the direction that comes from `sender` failed.
fn end_of(failed: &PumpError<io::Error, io::Error>, sender: Party) -> RelayEnd {
    match failed {
        PumpError::Source(error) => RelayEnd::failed(sender, error),
        PumpError::Sink(error) => RelayEnd::failed(sender.other(), error),
    }
}
