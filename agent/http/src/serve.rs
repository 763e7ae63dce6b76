//! A connection from its first bytes: which protocol it speaks, and who carries it.

use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::client::{Client, Downstream};
use super::gate::Gate;
use super::h1::{BufferedClient, Sink, Source, relay_raw};
use super::progress::Progress;
use super::sniff::{Protocol, sniff};
use super::{h1, h2};
use ambit_datapath::{RequestStream, Unasked, UnjudgedStream};
use ambit_relay::{CloseMode, Meter, on_close};

/// Bounds on a connection's requests. Bodies are bounded by nothing but the speed of who reads them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HttpLimits {
    /// From the first byte of a head to its end. Default 60 s.
    pub(crate) head_timeout: Duration,
    /// Bytes of a head, or of the trailers. Default 60 KiB.
    pub(crate) head_size: usize,
    /// How long a client that was told of the connection's end may take to hang up. Default 5 s.
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

/// Relays until both directions have ended; `read` was read of the client's already. A failure of
/// either, or dropping it, resets both sides.
pub async fn relay_opaque<D: Downstream>(
    mut downstream: D,
    read: Bytes,
    mut application: TcpStream,
    meter: &Meter,
) {
    downstream.set_close(CloseMode::Reset);
    on_close(&application, CloseMode::Reset);
    let client = Client::new(downstream, Bytes::new().into());
    let mut peer = BufferedClient::new(&client, read.into());
    let relayed = {
        let (from, to) = application.split();
        let (mut source, mut sink) = (Source::new(from), Sink::new(to));
        let progress = Progress::new(meter, Vec::new());
        let relaying = pin!(relay_raw(&mut peer, &mut source, &mut sink, &progress));
        client.driving(relaying).await
    };
    match relayed {
        Ok(()) => on_close(&application, CloseMode::Orderly),
        Err(_) => client.abort(),
    }
}
