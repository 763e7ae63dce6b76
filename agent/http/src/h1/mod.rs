//! HTTP/1.1 and HTTP/1.0 (RFC 9112): one request after the other, answers in their order.
//!
//! Bytes that could be read in two ways end the connection: a client's with 400, an application's
//! with 502.

mod body;
mod chunked;
mod client;
mod exchange;
mod fields;
mod framing;
mod head;
mod hop;
mod malformed;
mod pump;
mod reading;
mod response;
mod scan;
mod session;
mod upgrade;
mod wire;
mod write;

pub use chunked::{BodyPiece, ChunkDecoder};
pub(super) use client::BufferedClient;
pub(super) use fields::{MOST_FIELDS, retain_trailers};
pub use framing::Framing;
pub(super) use head::is_target;
pub use head::{HeadParser, ParsedRequest};
pub use hop::ConnectionPersistence;
pub(super) use hop::remove_all as remove_connection_headers;
pub use malformed::Malformed;
pub(super) use session::serve;
pub(super) use upgrade::relay_raw;
pub(super) use wire::{Sink, Source};
pub use write::{Unwritable, write_request};

/// Whether the protocols that an answer's Upgrade chooses were offered; for fuzz targets.
pub fn is_among_offered(chosen: &http::HeaderMap, offered: &http::HeaderMap) -> bool {
    hop::was_offered(chosen, offered)
}
