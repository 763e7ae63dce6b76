//! HTTP/2 with prior knowledge (RFC 9113): the client's streams, each judged by itself.
//!
//! The application's connection begins with the first permitted request. When the application takes
//! no more requests, the client is told so (GOAWAY), and what runs goes on.

mod application;
mod body;
mod exchange;
mod pump;
mod relay;
mod request;
mod settings;

use std::pin::pin;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::timeout;

use self::application::Application;
use self::exchange::{Shared, exchange};
use super::client::{Client, Downstream};
use super::gate::Gate;
use super::limits::HttpLimits;
use ambit_datapath::RequestStream;
use ambit_relay::Meter;

/// Serves a connection.
pub(super) async fn serve<D: Downstream>(
    client: Client<D>,
    application: RequestStream,
    gate: &impl Gate,
    limits: HttpLimits,
    meter: &Meter,
) {
    let settings = settings::server(limits.head_size);
    let mut connection = match settings.handshake::<_, Bytes>(client.clone()).await {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%error, "a client did not speak HTTP/2"),
    };
    let (application, driver) = Application::new(application, limits.head_size);
    let mut driver = pin!(driver);
    let mut is_driven = true;
    let shared = Shared {
        application,
        gate,
        meter,
    };
    let mut exchanges = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => exchanges.push(exchange(&shared, request, respond)),
                Some(Err(error)) => return tracing::debug!(%error, "a client's HTTP/2 ended"),
                None => break,
            },
            Some(()) = exchanges.next() => {}
            ended = &mut driver, if is_driven => {
                is_driven = false;
                if let Err(error) = ended {
                    tracing::debug!(%error, "an application's HTTP/2 ended");
                }
                connection.graceful_shutdown();
            }
            () = shared.application.drains() => connection.graceful_shutdown(),
        }
    }
    if !exchanges.is_empty() {
        return client.abort();
    }
    drop((exchanges, connection));
    shared.application.end();
    let ending = async {
        if is_driven {
            let _ = driver.await;
        }
    };
    let _ = timeout(limits.linger, async { tokio::join!(ending, client.end()) }).await;
}
