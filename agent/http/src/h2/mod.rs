//! HTTP/2 with prior knowledge (RFC 9113): each of the client's streams is judged on its own. A malformed head
//! of either side ends its own stream, for which `ambit-http2` filters what h2 reads.
//!
//! HTTP/2 to the application begins with the first permitted request. When the application accepts no
//! more requests, the client is sent GOAWAY at once, and requests that are under way continue. Those that the
//! client sends before it has seen GOAWAY go over another connection to the application.

mod application;
mod body;
mod exchange;
mod heads;
mod payload;
mod request;

use ambit_account::Charge;
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::Reason;
use tokio::time::timeout;

use self::application::Application;
use self::exchange::{Shared, exchange};
use self::heads::Heads;
use self::payload::Payload;
use super::client::Client;
use super::downstream::Downstream;
use super::gate::Gate;
use super::serve::HttpLimits;
use ambit_datapath::RequestStream;
use ambit_http2::{HeadFilter, HeadLimits};
use ambit_relay::Meter;

/// Bytes that a peer may send on one stream before they are passed on.
const STREAM_WINDOW: u32 = 256 << 10;

/// Bytes that a peer may send on all streams of a connection before they are passed on. They are drawn from the
/// pod's account: at least the first, which is HTTP/2's default, and up to the second while memory is plentiful.
const SCANT_CONNECTION: u32 = (64 << 10) - 1;
const AMPLE_CONNECTION: u32 = 512 << 10;

/// Payload of a DATA frame.
const FRAME: u32 = 32 << 10;

/// The most requests that a client may have under way on one connection. Their heads have a bound of their own
/// (`heads`).
const STREAMS: u32 = 1024;

/// The most streams that a peer may reset before they are accepted. Beyond that the connection is
/// closed (HTTP/2 rapid reset, CVE-2023-44487).
const PENDING_RESETS: usize = 64;

/// The most streams that a peer may make this side reset (CVE-2025-8671).
const OWN_RESETS: usize = 256;

/// Serves a client's connection.
pub(super) async fn serve<D: Downstream>(
    client: Client<D>,
    application: RequestStream,
    gate: &impl Gate,
    limits: HttpLimits,
    meter: &Meter,
) {
    // For what waits on the way to the application, and on the way back.
    let mut memory = gate.memory().nothing();
    let Some(window) = connection_window(&mut memory) else {
        tracing::debug!("a client's HTTP/2 connection was refused: the memory account is used up");
        return client.abort();
    };
    let head_limits = HeadLimits {
        frame: FRAME as usize,
        list: limits.head_size,
    };
    let settings = server_settings(limits.head_size, window);
    let filtered = HeadFilter::of_client(client.clone(), head_limits);
    let mut connection = match settings.handshake::<_, Payload>(filtered).await {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%error, "a client's HTTP/2 handshake failed"),
    };
    let settings = client_settings(limits.head_size, window);
    let shared = Shared {
        application: Application::new(application, gate, settings, head_limits),
        gate,
        meter,
    };
    let heads = Heads::default();
    let mut exchanges = FuturesUnordered::new();
    let mut drivers = FuturesUnordered::new();
    let ended = loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, mut respond))) => match heads.take(&request) {
                    Some(share) => exchanges.push(exchange(&shared, request, respond, share)),
                    None => respond.send_reset(Reason::REFUSED_STREAM),
                },
                Some(Err(error)) => break Err(error),
                None => break Ok(()),
            },
            Some(()) = exchanges.next() => {}
            Some(()) = drivers.next() => {}
            undriven = shared.application.undriven() => {
                drivers.push(shared.application.drive(undriven));
            }
            () = shared.application.drains() => connection.graceful_shutdown(),
        }
    };
    match ended {
        Ok(()) => {
            // Requests that are still under way are reset towards the application.
            drop((exchanges, connection));
            shared.application.end();
            let driven = async { while drivers.next().await.is_some() {} };
            let _ = timeout(limits.linger, async { tokio::join!(driven, client.end()) }).await;
        }
        Err(error) if !error.is_io() => {
            tracing::debug!(%error, "a client's HTTP/2 connection failed");
            // The client has been sent GOAWAY, which a reset could overtake. The application's connections are
            // reset.
            drop((exchanges, drivers, connection));
            let _ = timeout(limits.linger, client.end()).await;
        }
        Err(_) => client.abort(),
    }
}

/// Draws a connection's windows in both directions from `memory`, and returns the size of one. `None` if there is
/// not enough for the least.
fn connection_window(memory: &mut Charge) -> Option<u32> {
    memory.grow(2 * SCANT_CONNECTION as usize).ok()?;
    let more = memory.extend(2 * (AMPLE_CONNECTION - SCANT_CONNECTION) as usize);
    Some(SCANT_CONNECTION + u32::try_from(more / 2).unwrap_or(0))
}

/// The settings towards a client; a head may have `head_size` bytes, and all streams together may send
/// `window` bytes ahead.
fn server_settings(head_size: usize, window: u32) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(window)
        .max_frame_size(FRAME)
        .max_header_list_size(header_list(head_size))
        .max_concurrent_streams(STREAMS)
        .enable_connect_protocol()
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(OWN_RESETS))
        .max_send_buffer_size(FRAME as usize);
    builder
}

/// The settings towards an application; a head may have `head_size` bytes, and all streams together may send
/// `window` bytes ahead.
fn client_settings(head_size: usize, window: u32) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(window)
        .max_frame_size(FRAME)
        .max_header_list_size(header_list(head_size))
        .max_send_buffer_size(FRAME as usize);
    builder
}

fn header_list(head_size: usize) -> u32 {
    u32::try_from(head_size).unwrap_or(u32::MAX)
}
