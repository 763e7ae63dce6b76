//! HTTP/2 settings of both sides: room enough for throughput, bounded for each connection.

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes that a peer may send on a stream before it is read.
pub(super) const STREAM_WINDOW: u32 = 2 << 20;

/// Bytes that a peer may send on all streams of a connection before they are read: so many streams
/// may be left unread before the others have to wait for them.
pub(super) const CONNECTION_WINDOW: u32 = 16 * STREAM_WINDOW;

/// [`STREAM_WINDOW`] of a connection that there is little room for.
const SCANT_STREAM_WINDOW: u32 = 32 << 10;

/// [`CONNECTION_WINDOW`] of a connection that there is little room for.
const SCANT_CONNECTION_WINDOW: u32 = 8 * SCANT_STREAM_WINDOW;

/// Payload of a DATA frame.
const FRAME: u32 = 64 << 10;

/// What TLS takes at once: a DATA frame with its head, so that none is sent in two parts.
pub(crate) const TLS_BUFFER: usize = 2 * FRAME as usize;

/// Bytes of a CONNECT's head.
const HEADERS: u32 = 16 << 10;

/// Streams that a peer may have on one connection.
const STREAMS: u32 = 1024;

/// Streams that a peer may reset before they are accepted: beyond it the connection is closed
/// (HTTP/2 rapid reset, CVE-2023-44487).
const PENDING_RESETS: usize = 64;

/// The settings for opening tunnels.
pub(super) fn client() -> h2::client::Builder {
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
pub(crate) fn server() -> h2::server::Builder {
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

/// [`server`], with the room that [`widen`] gives, for tests that do not wait for it.
#[cfg(test)]
pub(crate) fn ample_server() -> h2::server::Builder {
    let mut builder = server();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
}

/// Lets an accepted tunnel have 32 MiB under way.
///
/// # Errors
/// Where the peer has not acknowledged the settings that it was sent before; to be tried again.
pub(crate) fn widen<T, B>(connection: &mut h2::server::Connection<T, B>) -> Result<(), h2::Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
    B: Buf,
{
    connection.set_initial_window_size(STREAM_WINDOW)?;
    connection.set_target_window_size(CONNECTION_WINDOW);
    Ok(())
}
