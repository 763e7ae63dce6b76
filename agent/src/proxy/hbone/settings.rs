//! HTTP/2 settings of both sides: room enough for throughput, bounded for each connection.

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

/// How much a connection may have under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Room {
    /// 32 MiB.
    Ample,
    /// 256 KiB.
    Scant,
}

/// The settings for accepting tunnels.
pub(crate) fn server(room: Room) -> h2::server::Builder {
    let (stream, connection) = match room {
        Room::Ample => (STREAM_WINDOW, CONNECTION_WINDOW),
        Room::Scant => (SCANT_STREAM_WINDOW, SCANT_CONNECTION_WINDOW),
    };
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(stream)
        .initial_connection_window_size(connection)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADERS)
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_send_buffer_size(FRAME as usize);
    builder
}
