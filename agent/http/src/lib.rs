//! HTTP between a client and a pod's application. Each request is judged, and only permitted
//! requests are sent, over one connection that the agent has dialled for this client's connection.
//!
//! HTTP/1 heads go through a scan of our own, which is stricter than applications are, and are split
//! by `httparse`. They are written anew, so that the application reads what was judged. HTTP/2 is
//! spoken by `h2` on both sides. The application gets the version of HTTP that the client speaks.
//!
//! # A request's way
//!
//! ```text
//!   client's bytes
//!        |
//!   first bytes (sniff, serve) -- not HTTP ------------> NotHttp: judged as a whole by the caller
//!        |
//!      head (h1::request, h2::request) -- malformed ---> 400, 405 or 431; HTTP/1 ends
//!        |  without hop-by-hop headers (h1::hop)
//!        |
//!      Gate::decide -- rejected -----------------------> Rejection is the response
//!        |  may read the body, and change the head
//!        |
//!   PermittedRequest -- cannot be written -------------> 500
//!        |
//!   application (h1::exchange, h2::exchange)
//!        |  head and body go there, while its response
//!        |  comes back; either may end first
//!        |-- policy changes ---------------------------> both sides see a reset
//!        |-- application fails ------------------------> 502 if the response has not begun, else what it had
//!        |                                               sent, and then its end or its reset
//!        |-- client fails -----------------------------> the application sees a reset
//!        |-- HTTP/1 client ends its side --------------> the application sees that, and goes on or ends
//!        |
//!   response to the client -- PermittedRequest::finish -- RequestSummary
//! ```
//!
//! # An HTTP/1 session
//!
//! One request follows the other on a client's connection (`h1::session`):
//!
//! ```text
//!              +----------------- next request <------------------+
//!              v                                                  |
//!   reading a head --> judging --> exchanging --> response sent --+
//!     |                   |            |              |
//!     |                   |            |              +- "close" on either side, or the application
//!     |                   |            |                 did not take all of the request --> end
//!     |                   |            +- 101: bytes both ways, as without HTTP (Downstream::relay)
//!     |                   |            +- broken off --> reset of both sides, after what was sent to the client
//!     |                   |            +- revoked --> reset of both sides at once
//!     |                   +- rejected: the response is sent; the body is discarded if it is
//!     |                      short, and the next request is read --> otherwise end
//!     +- malformed or too slow: the status is sent --> end
//!     +- the client has ended, or the application --> end
//!     +- broken off within a head --> reset of both sides
//!
//!   end: the client is sent the end of the stream, and has some time to hang up
//! ```

mod client;
mod downstream;
mod gate;
mod h1;
mod h2;
mod head;
mod progress;
mod serve;
mod sniff;
#[cfg(test)]
mod tests;
mod trailers;
mod tunnel_io;

pub use downstream::Downstream;
pub use gate::{
    BodyError, Gate, JudgedBody, PermittedRequest, Rejection, RequestOutcome, RequestSummary,
};
pub use h1::{
    ConnectionPersistence, Framing, HeadParser, Malformed, ParsedRequest, Spelling, Unwritable,
    write_request,
};
#[cfg(any(test, feature = "testing"))]
pub use h1::{DecodedChunks, decode_chunks, is_among_offered};
pub use head::RequestHead;
pub use progress::InjectedHeaders;
pub use serve::{HttpLimits, NotHttp, ServeOutcome, serve};
pub use tunnel_io::TunnelIo;
