//! One connection: HTTP/2, calls, and its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::server::UnaryService;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::super::protocol::{CREATE_CERTIFICATE_PATH, CertificateRequest, CertificateResponse};
use super::super::service::CertificateService;

/// Calls of a connection that are under way at once.
const MAX_STREAMS: u32 = 32;

/// The longest head of a call, in bytes: a token and little else.
const MAX_HEAD: u32 = 32 * 1024;

/// The largest message of a call, in bytes: a request for a certificate of an RSA key has two
/// thousand. With the number of streams, what a connection can have this process keep.
const MAX_MESSAGE: usize = 32 * 1024;

/// How long a call may take, from its head to its answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may go without a call. Clients make a new one when they need it.
const IDLE: Duration = Duration::from_secs(60);

/// How often a silent peer is asked whether it is there, and how long it has to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// How long the calls under way have to end once no more are taken.
const CLOSING: Duration = CALL_TIMEOUT.saturating_add(Duration::from_secs(1));

/// When a connection was used last.
#[derive(Debug)]
struct Activity(Mutex<(usize, Instant)>);

/// A call under way.
struct UnderWay<'a>(&'a Activity);

/// The peer's side of the service.
#[derive(Clone)]
struct Calls {
    service: Arc<CertificateService>,
    peer: SocketAddr,
}

/// Serves a connection until its peer leaves, it is idle for long, or `stop` says so.
pub(super) async fn serve<S>(
    stream: S,
    peer: SocketAddr,
    service: Arc<CertificateService>,
    mut stop: watch::Receiver<bool>,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::new());
    let calls = Calls { service, peer };
    let served = Arc::clone(&activity);
    let answer = service_fn(move |request| {
        let (calls, activity) = (calls.clone(), Arc::clone(&served));
        async move {
            let _under_way = activity.begin();
            Ok::<_, Infallible>(calls.answer(request).await)
        }
    });
    let mut connection = std::pin::pin!(builder().serve_connection(TokioIo::new(stream), answer));
    loop {
        tokio::select! {
            result = connection.as_mut() => return result,
            // An error is the end of the server, too.
            _ = stop.wait_for(|stop| *stop) => break,
            () = tokio::time::sleep(activity.left()) => {
                if activity.left().is_zero() {
                    break;
                }
            }
        }
    }
    connection.as_mut().graceful_shutdown();
    tokio::time::timeout(CLOSING, connection)
        .await
        .unwrap_or(Ok(()))
}

fn builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    builder
}

impl Activity {
    fn new() -> Self {
        Self(Mutex::new((0, Instant::now())))
    }

    fn begin(&self) -> UnderWay<'_> {
        self.change(1);
        UnderWay(self)
    }

    fn change(&self, by: isize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = (state.0.saturating_add_signed(by), Instant::now());
    }

    /// How long until the connection is idle for too long.
    fn left(&self) -> Duration {
        let (under_way, since) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match under_way {
            0 => IDLE.saturating_sub(since.elapsed()),
            _ => IDLE,
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.change(-1);
    }
}

impl Calls {
    async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        if request.method() != Method::POST || path != CREATE_CERTIFICATE_PATH {
            let reason = format!("only {CREATE_CERTIFICATE_PATH} is served here");
            return Status::new(Code::Unimplemented, reason).into_http();
        }
        let codec = ProstCodec::<CertificateResponse, CertificateRequest>::default();
        let mut grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE);
        match tokio::time::timeout(CALL_TIMEOUT, grpc.unary(self, request)).await {
            Ok(response) => response,
            Err(_) => {
                let reason = format!("the call has taken longer than {CALL_TIMEOUT:?}");
                Status::new(Code::DeadlineExceeded, reason).into_http()
            }
        }
    }
}

impl UnaryService<CertificateRequest> for Calls {
    type Response = CertificateResponse;
    type Future = BoxFuture<'static, Result<tonic::Response<CertificateResponse>, Status>>;

    fn call(&mut self, request: tonic::Request<CertificateRequest>) -> Self::Future {
        let Self { service, peer } = self.clone();
        Box::pin(async move {
            let (metadata, _, message) = request.into_parts();
            let headers = metadata.into_headers();
            let created = service.create_certificate(peer, &headers, &message).await;
            created
                .map(tonic::Response::new)
                .map_err(|refusal| refusal.status())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_with_a_call_is_not_idle() {
        let activity = Activity::new();
        let long_ago = Instant::now()
            .checked_sub(IDLE)
            .expect("a machine that runs for a while");
        activity.0.lock().expect("no panic").1 = long_ago;
        assert!(activity.left().is_zero());
        let under_way = activity.begin();
        activity.0.lock().expect("no panic").1 = long_ago;
        assert_eq!(activity.left(), IDLE);
        drop(under_way);
        assert!(!activity.left().is_zero());
    }
}
