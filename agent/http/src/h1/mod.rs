//! HTTP/1.1 and HTTP/1.0 (RFC 9112): one request after the other, with the responses in their order.
//!
//! Bytes that two readers could understand differently end the connection: from a client with status
//! 400, from an application with 502. Old forms that have one reading are taken from an application
//! (`response`, `chunked`), and written anew in the usual form.
//!
//! | file | concept |
//! |---|---|
//! | `fields` | where a head ends, its header lines, and what makes it malformed |
//! | `request`, `response` | heads, read and written |
//! | `spelling` | the names of header lines, as they were written |
//! | `hop` | hop-by-hop headers, Upgrade, and whether the connection is kept |
//! | `body`, `chunked` | where a body ends, and its bytes |
//! | `room` | the memory of buffers |
//! | `wire` | buffered reading and writing, and the copying of bodies |
//! | `exchange` | one permitted request and its response |
//! | `session` | a client's connection, request after request |

mod body;
mod chunked;
mod exchange;
mod fields;
mod hop;
mod request;
mod response;
mod room;
mod session;
mod spelling;
mod wire;

pub use body::Framing;
#[cfg(any(test, feature = "testing"))]
pub use chunked::{DecodedChunks, decode_chunks};
pub(super) use fields::MOST_FIELDS;
pub use fields::Malformed;
pub use hop::ConnectionPersistence;
pub(super) use hop::{remove_all as remove_connection_headers, upgrade_to};
pub use request::{HeadParser, ParsedRequest, Unwritable, write_request};
pub(super) use room::SCANT;
pub(super) use session::serve;
pub use spelling::Spelling;

/// Whether a response's Upgrade chooses among the protocols that were offered; for fuzz targets.
#[cfg(any(test, feature = "testing"))]
pub fn is_among_offered(chosen: &http::HeaderMap, offered: &http::HeaderMap) -> bool {
    hop::was_offered(chosen, offered)
}
