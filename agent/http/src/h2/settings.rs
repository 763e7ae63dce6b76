//! HTTP/2 settings towards clients and applications.

/// Bytes that a peer may send on a stream before they are passed on.
const STREAM_WINDOW: u32 = 256 << 10;

/// Bytes that a peer may send on all streams of a connection before they are passed on.
const CONNECTION_WINDOW: u32 = 16 * STREAM_WINDOW;

/// Payload of a DATA frame.
const FRAME: u32 = 32 << 10;

/// Requests that a client may have under way on one connection.
const STREAMS: u32 = 256;

/// Streams that a peer may reset before they are accepted: beyond it the connection is closed
/// (HTTP/2 rapid reset, CVE-2023-44487).
const PENDING_RESETS: usize = 64;

/// Streams that a peer may make this side reset (CVE-2025-8671).
const OWN_RESETS: usize = 256;

/// Towards a client; a head may have `head_size` bytes.
pub(super) fn server(head_size: usize) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(header_list(head_size))
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(OWN_RESETS))
        .max_send_buffer_size(FRAME as usize);
    builder
}

/// Towards an application.
pub(super) fn client(head_size: usize) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(header_list(head_size))
        .max_send_buffer_size(FRAME as usize);
    builder
}

fn header_list(head_size: usize) -> u32 {
    u32::try_from(head_size).unwrap_or(u32::MAX)
}
