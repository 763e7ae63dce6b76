//! HBONE tunnels: the HTTP/2 settings, and the streams with their places on a pooled connection.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

/// Bytes that a peer may send on one stream before they are read.
pub const STREAM_WINDOW: u32 = 2 << 20;

/// Bytes that a peer may send on all streams of a connection before they are read. When 16 streams are
/// full and unread, the others have to wait for them.
pub const CONNECTION_WINDOW: u32 = 16 * STREAM_WINDOW;

/// [`STREAM_WINDOW`] of a connection that has not been [widened](widen).
const SCANT_STREAM_WINDOW: u32 = 32 << 10;

/// [`CONNECTION_WINDOW`] of a connection that has not been [widened](widen).
const SCANT_CONNECTION_WINDOW: u32 = 8 * SCANT_STREAM_WINDOW;

/// Payload of a DATA frame.
const FRAME: u32 = 64 << 10;

/// Bytes that TLS buffers: enough for a DATA frame with its head, so that none is sent in two parts.
pub const TLS_BUFFER: usize = 2 * FRAME as usize;

/// The most bytes of a CONNECT's head.
const HEADERS: u32 = 16 << 10;

/// The most streams that a peer may have on one connection.
const STREAMS: u32 = 1024;

/// The most streams that a peer may reset before they are accepted. Beyond that the connection is
/// closed (HTTP/2 rapid reset, CVE-2023-44487).
const PENDING_RESETS: usize = 64;

/// A CONNECT stream that the other side has accepted.
#[derive(Debug)]
pub struct Tunnel {
    /// To the peer.
    pub send: SendStream<Bytes>,
    /// From the peer.
    pub receive: RecvStream,
    /// The stream's place on a pooled connection, which is released with it; `None` for a stream that a
    /// peer opened.
    pub lease: Option<StreamLease>,
}

/// Counts the streams of a pooled connection, by their leases.
#[derive(Debug)]
pub struct Occupancy {
    open: Cell<bool>,
    streams: Cell<usize>,
    stalled: Cell<usize>,
    /// When the last stream was opened or ended.
    used: Cell<Instant>,
}

impl Occupancy {
    /// For a connection that has just been opened.
    #[expect(clippy::new_without_default, reason = "it records the time")]
    pub fn new() -> Self {
        Self {
            open: Cell::new(true),
            streams: Cell::new(0),
            stalled: Cell::new(0),
            used: Cell::new(Instant::now()),
        }
    }

    /// Whether new streams may be opened.
    pub fn is_open(&self) -> bool {
        self.open.get()
    }

    /// Prevents new streams from being opened.
    pub fn close(&self) {
        self.open.set(false);
    }

    /// The number of streams that hold a lease.
    pub fn streams(&self) -> usize {
        self.streams.get()
    }

    /// The number of streams that wait for their peer to read.
    pub fn stalled(&self) -> usize {
        self.stalled.get()
    }

    /// How long there has been no stream; zero while there is any.
    pub fn idle_for(&self) -> Duration {
        match self.streams.get() {
            0 => self.used.get().elapsed(),
            _ => Duration::ZERO,
        }
    }
}

/// A stream's place on a pooled connection, released when it is dropped.
#[derive(Debug)]
pub struct StreamLease(Rc<Occupancy>);

/// Counts a stream as one that waits for its peer to read, until this is dropped.
#[derive(Debug)]
pub struct StalledStream<'a>(&'a Occupancy);

impl StreamLease {
    /// Counts one more stream.
    pub fn take(occupancy: &Rc<Occupancy>) -> Self {
        occupancy.streams.set(occupancy.streams.get() + 1);
        occupancy.used.set(Instant::now());
        Self(Rc::clone(occupancy))
    }

    /// Counts the stream as one that waits for its peer to read.
    pub fn stall(&self) -> StalledStream<'_> {
        self.0.stalled.set(self.0.stalled.get() + 1);
        StalledStream(&self.0)
    }
}

impl Drop for StreamLease {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.used.set(Instant::now());
    }
}

impl Drop for StalledStream<'_> {
    fn drop(&mut self) {
        self.0.stalled.set(self.0.stalled.get() - 1);
    }
}

/// The settings for opening tunnels.
pub fn client_settings() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADERS)
        .max_send_buffer_size(FRAME as usize);
    builder
}

/// The settings for accepting tunnels. Each may have 256 KiB under way, until it is [widened](widen).
pub fn server_settings() -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(SCANT_STREAM_WINDOW)
        .initial_connection_window_size(SCANT_CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADERS)
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_send_buffer_size(FRAME as usize);
    builder
}

/// [`server_settings`] with the windows that [`widen`] sets, for tests that do not wait for it.
#[cfg(any(test, feature = "testing"))]
pub fn ample_server_settings() -> h2::server::Builder {
    let mut builder = server_settings();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
}

/// Lets an accepted tunnel have 32 MiB under way.
///
/// # Errors
/// If the peer has not acknowledged the settings that it was sent before. Try again later then.
pub fn widen<T, B>(connection: &mut h2::server::Connection<T, B>) -> Result<(), h2::Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
    B: Buf,
{
    connection.set_initial_window_size(STREAM_WINDOW)?;
    connection.set_target_window_size(CONNECTION_WINDOW);
    Ok(())
}
