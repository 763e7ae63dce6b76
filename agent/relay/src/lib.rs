//! Relays bytes between a connection and a tunnel, or between two connections.
//!
//! The end of one direction leaves the other running. A failure of either direction, or dropping the
//! relay, resets both sides. A reader that is slow slows down the writer: little is kept in between.

mod departure;
mod drain;
mod ending;
mod tcp;
mod tunnel;

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use socket2::SockRef;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio_util::io::poll_read_buf;

pub use departure::departed;
pub use drain::{Drained, STALLED_AFTER, drain_then, stalled};
pub use ending::{Party, RelayEnd};
pub use tcp::relay_tcp;
#[cfg(any(test, feature = "testing"))]
pub use tunnel::ample_server_settings;
pub use tunnel::{
    CONNECTION_WINDOW, Occupancy, STREAM_WINDOW, StalledStream, StreamLease, TLS_BUFFER, Tunnel,
    client_settings, server_settings, widen,
};

/// Bytes that one read may return. The buffer is given up as soon as it is sent, so that an idle
/// connection has none.
const CHUNK: usize = 64 << 10;

/// Fewer bytes than this are copied out of the buffer that they were read into.
const SMALL: usize = CHUNK / 4;

/// Counts the payload of a connection from a source to a destination.
#[derive(Debug, Default)]
pub struct Meter {
    sent: Cell<u64>,
    received: Cell<u64>,
}

impl Meter {
    /// Bytes from source to destination.
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Bytes from destination to source.
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// Counts bytes from source to destination.
    pub fn add_sent(&self, bytes: u64) {
        self.sent.set(self.sent.get() + bytes);
    }

    /// Counts bytes from destination to source.
    pub fn add_received(&self, bytes: u64) {
        self.received.set(self.received.get() + bytes);
    }
}

/// Which application's connection a relay has, besides the tunnel to the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LocalEnd {
    /// The source's.
    Source,
    /// The destination's.
    Destination,
}

/// A direction did not end in order.
#[derive(Debug)]
struct Aborted;

impl From<io::Error> for Aborted {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl From<h2::Error> for Aborted {
    fn from(_: h2::Error) -> Self {
        Self
    }
}

/// The sending side of a stream. If it is dropped before an orderly end, its peer sees a reset. h2's
/// own reset on drop would not be an error if this side had ended before.
struct Sender {
    stream: SendStream<Bytes>,
    in_order: bool,
}

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.in_order {
            self.stream.send_reset(h2::Reason::CANCEL);
        }
    }
}

/// Relays between a connection, which is that of `local_end`, and a tunnel, until both directions have
/// ended.
pub async fn relay(mut stream: TcpStream, tunnel: Tunnel, local_end: LocalEnd, meter: &Meter) {
    let Tunnel {
        send,
        mut receive,
        lease,
    } = tunnel;
    let mut sender = Sender {
        stream: send,
        in_order: false,
    };
    let (out, back) = match local_end {
        LocalEnd::Source => (&meter.sent, &meter.received),
        LocalEnd::Destination => (&meter.received, &meter.sent),
    };
    on_close(&stream, CloseMode::Reset);
    let (read, write) = stream.split();
    let ended = tokio::try_join!(
        into_tunnel(read, &mut sender.stream, lease.as_ref(), out),
        out_of_tunnel(&mut receive, write, back),
    );
    if ended.is_ok() {
        on_close(&stream, CloseMode::Orderly);
        sender.in_order = true;
    }
}

/// What the peer sees when a connection is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseMode {
    /// A reset.
    Reset,
    /// The end of the stream, after all that was sent.
    Orderly,
}

/// Sets what the peer sees when the connection is dropped.
pub fn on_close(stream: &TcpStream, close: CloseMode) {
    let linger = match close {
        CloseMode::Reset => Some(Duration::ZERO),
        CloseMode::Orderly => None,
    };
    if let Err(error) = SockRef::from(stream).set_linger(linger) {
        tracing::debug!(%error, "SO_LINGER could not be set");
    }
}

/// Relays from the application into the tunnel.
async fn into_tunnel(
    mut read: ReadHalf<'_>,
    send: &mut SendStream<Bytes>,
    lease: Option<&StreamLease>,
    count: &Cell<u64>,
) -> Result<(), Aborted> {
    loop {
        let chunk = tokio::select! {
            chunk = next_chunk(&mut read) => chunk?,
            reset = poll_fn(|context| send.poll_reset(context)) => {
                reset?;
                return Err(Aborted);
            }
        };
        let Some(mut chunk) = chunk else {
            send.send_data(Bytes::new(), true)?;
            return Ok(());
        };
        count.set(count.get() + chunk.len() as u64);
        while !chunk.is_empty() {
            send.reserve_capacity(chunk.len());
            let waiting = lease.map(StreamLease::stall);
            let room = tokio::select! {
                room = poll_fn(|context| send.poll_capacity(context)) => room,
                // A full tunnel must not hide that the application has gone.
                _ = read.ready(Interest::ERROR) => return Err(Aborted),
            };
            drop(waiting);
            let room = room.ok_or(Aborted)??;
            send.send_data(chunk.split_to(room.min(chunk.len())), false)?;
        }
    }
}

/// Relays from the tunnel to the application. Bytes that arrive while the application does not read
/// are kept here, since h2 closes a connection on which too many small frames wait. They are bounded
/// by the stream's window, which is released only for bytes that were written.
async fn out_of_tunnel(
    receive: &mut RecvStream,
    mut write: WriteHalf<'_>,
    count: &Cell<u64>,
) -> Result<(), Aborted> {
    let mut waiting = BytesMut::new();
    let mut ended = false;
    while !(ended && waiting.is_empty()) {
        let written = tokio::select! {
            data = receive.data(), if !ended => match data.transpose()? {
                Some(data) if waiting.is_empty() => {
                    let written = write_now(&write, &data)?;
                    waiting.extend_from_slice(&data[written..]);
                    written
                }
                Some(data) => {
                    waiting.extend_from_slice(&data);
                    0
                }
                None => {
                    ended = true;
                    0
                }
            },
            writable = write.writable(), if !waiting.is_empty() => {
                writable?;
                let written = write_now(&write, &waiting)?;
                waiting.advance(written);
                written
            }
        };
        count.set(count.get() + written as u64);
        receive.flow_control().release_capacity(written)?;
        if waiting.is_empty() {
            waiting = BytesMut::new();
        }
    }
    write.shutdown().await?;
    Ok(())
}

/// Writes as many bytes as there is room for, and returns how many.
fn write_now(write: &WriteHalf<'_>, data: &[u8]) -> io::Result<usize> {
    match write.try_write(data) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}

/// Waits for bytes and reads them; `None` at the end.
async fn next_chunk(read: &mut ReadHalf<'_>) -> io::Result<Option<Bytes>> {
    read.readable().await?;
    let read = poll_fn(|context| {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        // Unlike `try_read`, this does not try a second read after a short one.
        poll_read_buf(Pin::new(&mut *read), context, &mut buffer).map_ok(|_length| buffer)
    });
    let buffer = read.await?;
    Ok(match buffer.len() {
        0 => None,
        // A few bytes would keep the whole buffer allocated while they wait to be sent.
        1..SMALL => Some(Bytes::copy_from_slice(&buffer)),
        _ => Some(buffer.freeze()),
    })
}

#[cfg(test)]
mod tests;
