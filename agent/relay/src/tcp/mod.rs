//! Relays between two connections, so that what was sent arrives.
//!
//! The end of one direction leaves the other running. If one side breaks off, the other still gets all that
//! was received from it before, and sees the break-off afterwards:
//!
//! | what happens | the direction that comes from there | the one that goes there | the other side |
//! |---|---|---|---|
//! | FIN | ends in order | goes on | sees the end |
//! | a reset | is carried to its last byte | stops | reset, once it has everything |
//! | FIN, and later a reset | ends in order | stops | sees the end, is reset once it has everything |
//! | the application closes its socket, after FIN | ends in order | stops | closed, once it has everything |
//!
//! Nothing but the chunk in hand is kept. Dropping the relay resets both sides at once.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::pin;

use bytes::{Buf, Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::task::coop::consume_budget;

use crate::ahead::Ahead;
use crate::departure::departed;
use crate::drain::{Drained, drain_then, stalled};
use crate::socket::Socket;
use crate::{CloseMode, Meter, Party, RelayEnd, on_close};

/// Bytes that one read may return. The buffer is given up as soon as it is sent, so that an idle
/// connection has none.
const CHUNK: usize = 64 << 10;

/// Fewer bytes than this are copied out of the buffer that they were read into.
const SMALL: usize = CHUNK / 4;

/// A connection to one of the two parties. Reading and writing let other tasks run from time to time, as
/// tokio's own do.
struct Side(Socket<TcpStream>);

/// How a direction ended.
enum CopyEnd {
    /// Its end was passed on.
    InOrder,
    /// Its source broke off. All that had been received was written.
    SourceFailed(io::Error),
    /// Its sink takes nothing any more. The error is unknown if no write met it.
    SinkFailed(Option<io::Error>),
}

/// What ended a relay before both directions had ended in order.
struct Break {
    /// The party that left.
    culprit: Party,
    /// How, unless what it sent before shows more.
    end: RelayEnd,
}

/// Relays between the source's connection and the destination's, until both directions have ended. What was read
/// `ahead` goes first.
///
/// `has_closed` says whether a party has closed its socket; `false` if that cannot be known. It is asked
/// only after the party has ended its sending.
pub async fn relay_tcp(
    source: TcpStream,
    destination: TcpStream,
    ahead: Ahead,
    meter: &Meter,
    has_closed: impl Fn(Party, &TcpStream) -> bool,
) -> RelayEnd {
    let (client, server) = (Side::new(source), Side::new(destination));
    let end = carry(&client, &server, ahead, meter, has_closed).await;
    if end.is_orderly() {
        on_close(client.stream(), CloseMode::Orderly);
        on_close(server.stream(), CloseMode::Orderly);
    }
    end
}

async fn carry(
    client: &Side,
    server: &Side,
    ahead: Ahead,
    meter: &Meter,
    has_closed: impl Fn(Party, &TcpStream) -> bool,
) -> RelayEnd {
    let mut up = pin!(copy(
        client,
        server,
        ahead.from_client,
        meter.from(Party::Client)
    ));
    let mut down = pin!(copy(
        server,
        client,
        ahead.from_server,
        meter.from(Party::Server)
    ));
    let (mut up_open, mut down_open) = (true, true);
    let Break { culprit, end } = {
        let client_closed = |stream: &TcpStream| has_closed(Party::Client, stream);
        let server_closed = |stream: &TcpStream| has_closed(Party::Server, stream);
        let mut client_left = pin!(departed(client.stream(), client_closed));
        let mut server_left = pin!(departed(server.stream(), server_closed));
        loop {
            let broken = tokio::select! {
                ended = &mut up, if up_open => {
                    up_open = false;
                    ended.break_of(Party::Client)
                }
                ended = &mut down, if down_open => {
                    down_open = false;
                    ended.break_of(Party::Server)
                }
                () = &mut client_left => Some(Break::departure(Party::Client)),
                () = &mut server_left => Some(Break::departure(Party::Server)),
            };
            match broken {
                Some(broken) => break broken,
                None if up_open || down_open => {}
                None => return RelayEnd::Orderly,
            }
        }
    };
    let (rest, left, survivor) = match culprit {
        Party::Client => (up_open.then_some(up), client, server),
        Party::Server => (down_open.then_some(down), server, client),
    };
    let end = match rest {
        // Nothing reads from there any more, so the error is here to be taken.
        None => match left.stream().take_error() {
            Ok(Some(error)) => RelayEnd::failed(culprit, &error),
            Ok(None) | Err(_) => end,
        },
        Some(rest) => tokio::select! {
            ended = rest => ended.after(end, culprit),
            () = stalled(survivor.stream()) => return RelayEnd::Stalled(culprit.other()),
        },
    };
    match drain_then(survivor.stream(), CloseMode::Reset).await {
        Drained::Acknowledged | Drained::Gone => end,
        Drained::Stalled => RelayEnd::Stalled(culprit.other()),
    }
}

impl Side {
    fn new(stream: TcpStream) -> Self {
        on_close(&stream, CloseMode::Reset);
        Self(Socket::new(stream))
    }

    fn stream(&self) -> &TcpStream {
        self.0.stream()
    }

    /// Reads what has arrived; `None` at the end.
    async fn read(&self) -> io::Result<Option<Bytes>> {
        loop {
            consume_budget().await;
            self.stream().readable().await?;
            match self.read_once() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    fn read_once(&self) -> io::Result<Option<Bytes>> {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        let length = self.0.try_recv(&mut buffer.spare_capacity_mut()[..CHUNK])?;
        // SAFETY: the kernel has written so many bytes to the beginning of the buffer.
        unsafe { buffer.set_len(length) };
        Ok(match length {
            0 => None,
            // A few bytes would keep the whole buffer allocated while they wait to be sent.
            1..SMALL => Some(Bytes::copy_from_slice(&buffer)),
            _ => Some(buffer.freeze()),
        })
    }

    async fn write_all(&self, mut chunk: Bytes, count: &Cell<u64>) -> io::Result<()> {
        while !chunk.is_empty() {
            consume_budget().await;
            match self.0.try_write_vectored(&[IoSlice::new(&chunk)]) {
                Ok(written) => {
                    count.set(count.get() + written as u64);
                    chunk.advance(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stream().writable().await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Copies `first`, and then what comes.
async fn copy(from: &Side, to: &Side, first: Bytes, count: &Cell<u64>) -> CopyEnd {
    let mut chunk = first;
    loop {
        if let Err(error) = to.write_all(chunk, count).await {
            return CopyEnd::SinkFailed(Some(error));
        }
        let read = tokio::select! {
            biased;
            read = from.read() => read,
            () = to.0.failed() => return CopyEnd::SinkFailed(None),
        };
        chunk = match read {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(error) => return CopyEnd::SourceFailed(error),
        };
    }
    match to.0.shutdown() {
        Ok(()) => CopyEnd::InOrder,
        Err(_) => CopyEnd::SinkFailed(None),
    }
}

impl CopyEnd {
    /// What the end of the direction that comes from `sender` means for the relay.
    fn break_of(self, sender: Party) -> Option<Break> {
        let (culprit, error) = match self {
            Self::InOrder => return None,
            Self::SourceFailed(error) => (sender, Some(error)),
            Self::SinkFailed(error) => (sender.other(), error),
        };
        let end = match error {
            Some(error) => RelayEnd::failed(culprit, &error),
            None => RelayEnd::Reset(culprit),
        };
        Some(Break { culprit, end })
    }

    /// How the relay ended if `culprit` had left with `end`, and then the direction that comes from it ended
    /// like this.
    fn after(self, end: RelayEnd, culprit: Party) -> RelayEnd {
        match self {
            Self::InOrder => end,
            Self::SourceFailed(error) => RelayEnd::failed(culprit, &error),
            // Both are gone. The first to break off ended it.
            Self::SinkFailed(_) if !end.is_orderly() => end,
            Self::SinkFailed(Some(error)) => RelayEnd::failed(culprit.other(), &error),
            Self::SinkFailed(None) => RelayEnd::Reset(culprit.other()),
        }
    }
}

impl Break {
    fn departure(party: Party) -> Self {
        Self {
            culprit: party,
            end: RelayEnd::Closed(party),
        }
    }
}

#[cfg(test)]
mod tests;
