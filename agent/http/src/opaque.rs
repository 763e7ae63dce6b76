//! A connection that is no HTTP, once it has been allowed as a whole.

use std::pin::pin;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::client::{Client, Downstream};
use super::h1::{BufferedClient, Sink, Source, relay_raw};
use super::progress::Progress;
use ambit_relay::{CloseMode, Meter, on_close};

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
