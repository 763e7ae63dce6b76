//! Whether the CA can serve, for a kubelet's probe: plain HTTP, `/healthz`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use super::certificate::ServerCertificate;
use crate::pods::{PodDirectory, PodIndex};
use ambit_admission::{Seats, UnverifiedSource};

/// How long a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Probes at once. One more displaces the oldest, of those who make most of them.
const MAX_PROBES: usize = 64;

/// Answers probes for as long as it is polled.
pub async fn serve_health(
    listener: TcpListener,
    pods: PodDirectory,
    certificate: Arc<ServerCertificate>,
) {
    let seats = Seats::new(MAX_PROBES);
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(PROBE_TIMEOUT).await;
            continue;
        };
        let Ok(mut seat) = seats.take(UnverifiedSource::of(peer.ip())) else {
            continue;
        };
        let (pods, certificate) = (pods.clone(), Arc::clone(&certificate));
        tokio::spawn(async move {
            let answering = answer(stream, &pods, &certificate);
            let answered = tokio::select! {
                answered = tokio::time::timeout(PROBE_TIMEOUT, answering) => {
                    matches!(answered, Ok(Ok(())))
                }
                () = seat.displaced() => false,
            };
            if !answered {
                tracing::debug!("a probe was not answered");
            }
        });
    }
}

async fn answer(
    stream: TcpStream,
    pods: &PodDirectory,
    certificate: &ServerCertificate,
) -> hyper::Result<()> {
    let service = service_fn(async |request: Request<Incoming>| {
        let (status, text) = match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz") => health(pods, certificate),
            _ => (StatusCode::NOT_FOUND, "only GET /healthz is answered"),
        };
        let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
        *response.status_mut() = status;
        Ok::<_, Infallible>(response)
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).keep_alive(false);
    server.serve_connection(TokioIo::new(stream), service).await
}

fn health(pods: &PodDirectory, certificate: &ServerCertificate) -> (StatusCode, &'static str) {
    if pods.look(PodIndex::len).is_err() {
        let text = "it is not known yet which pods run where";
        return (StatusCode::SERVICE_UNAVAILABLE, text);
    }
    if !certificate.is_valid(SystemTime::now()) {
        let text = "the server's own certificate has expired";
        return (StatusCode::SERVICE_UNAVAILABLE, text);
    }
    (StatusCode::OK, "ok")
}
