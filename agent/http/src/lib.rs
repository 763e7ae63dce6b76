//! HTTP between a client and a pod's application: each request is judged, and only what is
//! permitted is sent, over one connection that was dialled for this client's.
//!
//! HTTP/1 is read by a parser of our own, stricter than applications are, and written anew: what is
//! sent is what was judged. HTTP/2 is h2's, on both sides. A client of one version gets an
//! application of the same.

mod authority;
mod client;
mod expect;
mod gate;
mod h1;
mod h2;
mod head;
mod injected_headers;
mod limits;
mod opaque;
mod progress;
mod sniff;
#[cfg(test)]
mod tests;
mod tunnel_io;

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;

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
pub use injected_headers::InjectedHeaders;
pub use limits::HttpLimits;
pub use opaque::relay_opaque;
pub use tunnel_io::TunnelIo;

use self::client::Client;
use self::sniff::{Protocol, sniff};
use ambit_datapath::{RequestStream, Unasked, UnjudgedStream};
use ambit_relay::{CloseMode, Meter};

/// What is read to find out the protocol.
const FIRST: usize = 4 << 10;

/// What became of a connection.
#[derive(Debug)]
pub enum ServeOutcome<D> {
    /// It was carried to its end.
    Ended,
    /// It is no HTTP.
    NotHttp(NotHttp<D>),
}

/// A connection that is no HTTP, with nothing sent either way: to be judged as a whole.
#[derive(Debug)]
pub struct NotHttp<D> {
    /// The client's side.
    pub downstream: D,
    /// What the client has sent so far. Empty where the application spoke first.
    pub read: Bytes,
    /// The application's side.
    pub application: UnjudgedStream,
}

/// Carries a client's connection to its end. Dropped before, both sides see a reset.
pub async fn serve<D: Downstream>(
    mut downstream: D,
    application: RequestStream,
    gate: &impl Gate,
    limits: HttpLimits,
    meter: &Meter,
) -> ServeOutcome<D> {
    downstream.set_close(CloseMode::Reset);
    let mut read = BytesMut::new();
    let begun = tokio::select! {
        begun = begin(&mut downstream, &mut read, limits) => begun,
        begun = unasked(&application) => begun,
    };
    match begun {
        Begun::Protocol(Protocol::Http1) => {
            let client = Client::new(downstream, BytesMut::new());
            let session = pin!(h1::serve(
                client.clone(),
                read,
                application,
                gate,
                limits,
                meter
            ));
            client.driving(session).await;
            ServeOutcome::Ended
        }
        Begun::Protocol(Protocol::Http2) => {
            let client = Client::new(downstream, read);
            let session = pin!(h2::serve(client.clone(), application, gate, limits, meter));
            client.driving(session).await;
            ServeOutcome::Ended
        }
        Begun::Protocol(Protocol::Other | Protocol::Undecided) => ServeOutcome::NotHttp(NotHttp {
            downstream,
            read: read.freeze(),
            application: application.into_unjudged(),
        }),
        Begun::Ended => {
            application.end();
            let ending = Client::new(downstream, read).end();
            let _ = tokio::time::timeout(limits.linger, ending).await;
            ServeOutcome::Ended
        }
        Begun::Broken => ServeOutcome::Ended,
    }
}

/// How a connection began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Begun {
    /// With bytes of some protocol.
    Protocol(Protocol),
    /// With its end.
    Ended,
    /// It was reset, or came to a stop in its first line.
    Broken,
}

/// What an application makes of a connection on which nothing was asked of it: what speaks first
/// is no HTTP server, unless it says that it is one of HTTP/2.
async fn unasked(application: &RequestStream) -> Begun {
    match application.unasked().await {
        Unasked::Ended => Begun::Ended,
        Unasked::Spoke => Begun::Protocol(Protocol::Other),
        Unasked::BeganHttp2 => std::future::pending().await,
    }
}

/// Reads until the bytes tell the protocol. Waiting for the first byte has no limit.
async fn begin<D: Downstream>(
    downstream: &mut D,
    read: &mut BytesMut,
    limits: HttpLimits,
) -> Begun {
    read.reserve(FIRST);
    match downstream.read_buf(read).await {
        Ok(0) => return Begun::Ended,
        Ok(_) => {}
        Err(_) => return Begun::Broken,
    }
    let deciding = async {
        loop {
            match sniff(read) {
                Protocol::Undecided => {}
                decided => return Begun::Protocol(decided),
            }
            match downstream.read_buf(read).await {
                Ok(0) => return Begun::Protocol(Protocol::Other),
                Ok(_) => {}
                Err(_) => return Begun::Broken,
            }
        }
    };
    let decided = tokio::time::timeout(limits.head_timeout, deciding).await;
    decided.unwrap_or(Begun::Broken)
}
