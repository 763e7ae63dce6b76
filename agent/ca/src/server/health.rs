//! Whether the CA can serve, for a kubelet's probe: plain HTTP, `/healthz`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::net::TcpListener;

use super::certificate::ServerCertificate;
use crate::pods::{PodDirectory, PodIndex};
use ambit_daemon::http::{ConnectionBound, HttpBounds, HttpResponse};

/// How long a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// What probes may take.
const BOUNDS: HttpBounds = HttpBounds {
    name: "a probe's",
    connections: ConnectionBound::Displacing(64),
    head_timeout: PROBE_TIMEOUT,
    exchange_timeout: Some(PROBE_TIMEOUT),
    accept_pause: PROBE_TIMEOUT,
};

/// Answers probes while it is polled.
pub async fn serve_health(
    listener: TcpListener,
    pods: PodDirectory,
    certificate: Arc<ServerCertificate>,
) {
    let service = move |request| {
        let response = respond(&pods, &certificate, &request);
        std::future::ready(response)
    };
    ambit_daemon::http::serve(listener, BOUNDS, service).await;
}

fn respond<B>(
    pods: &PodDirectory,
    certificate: &ServerCertificate,
    request: &Request<B>,
) -> HttpResponse {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => health(pods, certificate),
        _ => (StatusCode::NOT_FOUND, "only GET /healthz is answered"),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
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
