//! Serves a client's connection: finds out the protocol from its first bytes, and carries it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;

use super::client::Client;
use super::downstream::Downstream;
use super::gate::Gate;
use super::sniff::{Protocol, sniff};
use super::{h1, h2};
use ambit_datapath::{RequestStream, Unasked, UnjudgedStream};
use ambit_relay::{CloseMode, Meter};

/// Bounds on a connection's requests. Bodies have no bound: they are read as fast as the other side
/// takes them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HttpLimits {
    /// The time from the first byte of a head to its last. Default 60 s.
    pub(crate) head_timeout: Duration,
    /// The most bytes of a head, or of the trailers. Default 60 KiB.
    pub(crate) head_size: usize,
    /// How long a client may take to hang up after the connection's end was sent to it. Default 5 s.
    pub(crate) linger: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(60),
            head_size: 60 << 10,
            linger: Duration::from_secs(5),
        }
    }
}

/// Bytes of the buffer in which the first bytes are read.
const FIRST: usize = 4 << 10;

/// How serving a connection ended.
#[derive(Debug)]
pub enum ServeOutcome<D> {
    /// It was carried to its end.
    Ended,
    /// It does not speak HTTP.
    NotHttp(NotHttp<D>),
}

/// A connection that does not speak HTTP. Nothing has been sent either way: it is to be judged as a
/// whole.
#[derive(Debug)]
pub struct NotHttp<D> {
    /// The client's side.
    pub downstream: D,
    /// What the client has sent so far. Empty if the application spoke first.
    pub read: Bytes,
    /// The application's side.
    pub application: UnjudgedStream,
}

/// Carries a client's connection to its end. If it is dropped before, both sides see a reset.
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
            h1::serve(client, read, application, gate, limits, meter).await;
            ServeOutcome::Ended
        }
        Begun::Protocol(Protocol::Http2) => {
            let client = Client::new(downstream, read);
            h2::serve(client, application, gate, limits, meter).await;
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
    /// Its bytes tell the protocol.
    Protocol(Protocol),
    /// It ended without a byte.
    Ended,
    /// It was reset, or stalled within its first line.
    Broken,
}

/// Watches an application that has not been sent a request. An application that speaks first is not
/// an HTTP server, unless it begins with HTTP/2's SETTINGS.
async fn unasked(application: &RequestStream) -> Begun {
    match application.unasked().await {
        Unasked::Ended => Begun::Ended,
        Unasked::Spoke => Begun::Protocol(Protocol::Other),
        Unasked::BeganHttp2 => std::future::pending().await,
    }
}

/// Reads until the bytes tell the protocol. There is no time limit for the first byte.
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
