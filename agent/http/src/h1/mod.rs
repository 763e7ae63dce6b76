//! HTTP/1.1 and HTTP/1.0 (RFC 9112): one request after the other, answers in their order.
//!
//! Bytes that could be read in two ways end the connection: a client's with 400, an application's
//! with 502.

mod body;
mod chunked;
mod exchange;
mod fields;
mod hop;
mod request;
mod response;
mod session;
mod wire;

pub use body::Framing;
pub use chunked::{BodyPiece, ChunkDecoder};
pub use fields::Malformed;
pub(super) use fields::{MOST_FIELDS, retain_trailers};
pub use hop::ConnectionPersistence;
pub(super) use hop::remove_all as remove_connection_headers;
pub use request::{HeadParser, ParsedRequest, Unwritable, write_request};
pub(super) use session::serve;
pub(super) use wire::{BufferedClient, Sink, Source, relay_raw};

/// Whether the protocols that an answer's Upgrade chooses were offered; for fuzz targets.
pub fn is_among_offered(chosen: &http::HeaderMap, offered: &http::HeaderMap) -> bool {
    hop::was_offered(chosen, offered)
}
