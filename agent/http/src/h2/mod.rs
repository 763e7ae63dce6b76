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
mod unwritten;
mod windows;

use std::rc::Rc;

use ambit_account::AccountExhausted;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::{Reason, RecvStream};
use http::Request;
use tokio::time::timeout;

use self::application::Application;
use self::exchange::{Shared, exchange};
use self::heads::{HeadShare, Heads};
use self::payload::Payload;
use self::windows::{WindowUse, Windows};
use super::client::Client;
use super::downstream::Downstream;
use super::gate::Gate;
use super::serve::HttpLimits;
use ambit_datapath::RequestStream;
use ambit_http2::{HeadFilter, HeadLimits};
use ambit_relay::Meter;

/// Bytes that a peer may send on one stream before they are passed on.
const STREAM_WINDOW: u32 = 256 << 10;

/// What a client's connection and that to its application take without requests: their buffers for frames, and a
/// part of a head.
const CONNECTION: usize = 64 << 10;

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
    let memory = gate.memory();
    let _charge = match memory.take(CONNECTION) {
        Ok(charge) => charge,
        Err(exhausted) => {
            gate.out_of_memory(exhausted);
            return client.abort();
        }
    };
    let head_limits = HeadLimits {
        frame: FRAME as usize,
        list: limits.head_size,
    };
    let windows = Windows::new(memory);
    let settings = server_settings(limits.head_size);
    let filtered = HeadFilter::of_client(client.clone(), head_limits);
    let mut connection = match settings.handshake::<_, Payload>(filtered).await {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%error, "a client's HTTP/2 handshake failed"),
    };
    let settings = client_settings(limits.head_size);
    let responses = Rc::clone(&windows.responses);
    let shared = Shared {
        application: Application::new(application, gate, settings, head_limits, responses),
        windows,
        gate,
        meter,
    };
    let heads = Heads::default();
    let mut exchanges = FuturesUnordered::new();
    let mut drivers = FuturesUnordered::new();
    let ended = loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, mut respond))) => match admit(&shared.windows, &heads, &request) {
                    Ok(admitted) => exchanges.push(exchange(&shared, request, respond, admitted)),
                    Err(refused) => {
                        respond.send_reset(Reason::REFUSED_STREAM);
                        if let NotAdmitted::NoMemory(exhausted) = refused {
                            gate.out_of_memory(exhausted);
                            // The windows of another connection begin small.
                            if shared.windows.have_grown() {
                                connection.graceful_shutdown();
                            }
                        }
                    }
                },
                Some(Err(error)) => break Err(error),
                None => break Ok(()),
            },
            Some(()) = exchanges.next() => {}
            Some(()) = drivers.next() => {}
            undriven = shared.application.undriven() => {
                drivers.push(shared.application.drive(undriven));
            }
            size = shared.windows.requests.grown() => connection.set_target_window_size(size),
            () = shared.application.drains() => connection.graceful_shutdown(),
        }
    };
    // What has just been written may have ended some.
    while exchanges.next().now_or_never().flatten().is_some() {}
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

/// What a request holds while it is under way.
struct Admitted {
    _heads: HeadShare,
    _response: WindowUse,
    _body: Option<WindowUse>,
}

/// Why a request is refused before it is judged.
enum NotAdmitted {
    /// The heads of the client's requests are as long as they may be.
    Heads,
    /// The pod's account has no memory for the bytes that may come.
    NoMemory(AccountExhausted),
}

fn admit(
    windows: &Windows,
    heads: &Heads,
    request: &Request<RecvStream>,
) -> Result<Admitted, NotAdmitted> {
    let has_body = !request.body().is_end_stream();
    let body = has_body.then(|| windows.requests.enter()).transpose();
    Ok(Admitted {
        _heads: heads.take(request).ok_or(NotAdmitted::Heads)?,
        _response: windows.responses.enter().map_err(NotAdmitted::NoMemory)?,
        _body: body.map_err(NotAdmitted::NoMemory)?,
    })
}

/// The settings towards a client; a head may have `head_size` bytes.
fn server_settings(head_size: usize) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(header_list(head_size))
        .max_concurrent_streams(STREAMS)
        .enable_connect_protocol()
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(OWN_RESETS))
        .max_send_buffer_size(FRAME as usize);
    builder
}

/// The settings towards an application; a head may have `head_size` bytes.
fn client_settings(head_size: usize) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(header_list(head_size))
        .max_send_buffer_size(FRAME as usize);
    builder
}

fn header_list(head_size: usize) -> u32 {
    u32::try_from(head_size).unwrap_or(u32::MAX)
}
