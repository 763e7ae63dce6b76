//! HTTP between a client and a pod's application: each request is judged, and only what is
//! permitted is sent, over one connection that was dialled for this client's.
//!
//! HTTP/1 is read by a parser of our own, stricter than applications are, and written anew: what is
//! sent is what was judged. HTTP/2 is h2's, on both sides. A client of one version gets an
//! application of the same.

mod client;
mod gate;
mod h1;
mod h2;
mod head;
mod progress;
mod serve;
mod sniff;
#[cfg(test)]
mod tests;
mod tunnel_io;

pub use client::Downstream;
pub use gate::{
    BodyError, Gate, JudgedBody, PermittedRequest, Rejection, RequestOutcome, RequestSummary,
};
#[doc(hidden)]
pub use h1::is_among_offered;
pub use h1::{
    BodyPiece, ChunkDecoder, ConnectionPersistence, Framing, HeadParser, Malformed, ParsedRequest,
    Unwritable, write_request,
};
pub use head::RequestHead;
pub use progress::InjectedHeaders;
pub use serve::{HttpLimits, NotHttp, ServeOutcome, relay_opaque, serve};
pub use tunnel_io::TunnelIo;
