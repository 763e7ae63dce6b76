//! One connection: HTTP/2, calls, and its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

use super::super::caller::AuthenticatedCaller;
use super::super::service::CertificateService;
use super::slots::{ConnectionSlots, ConnectionSource, Slot, SlotHandle, UsedSlot};
use ambit_ca_protocol::{CREATE_CERTIFICATE_PATH, CertificateRequest, CertificateResponse};

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

/// How long a connection may stand on which no token was shown that is good: a call may take its
/// time.
const STRANGER: Duration = CALL_TIMEOUT.saturating_add(Duration::from_secs(5));

/// How often a silent peer is asked whether it is there, and how long it has to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// How long the calls under way have to end once no more are taken.
const CLOSING: Duration = CALL_TIMEOUT.saturating_add(Duration::from_secs(1));

/// A connection's slot, and where it gets another one once its caller is known.
pub(super) struct ConnectionSlot {
    pub(super) slots: ConnectionSlots,
    pub(super) slot: Slot,
}

/// How a connection is used.
#[derive(Debug)]
struct Activity(Mutex<ConnectionUse>);

#[derive(Debug)]
struct ConnectionUse {
    under_way: usize,
    /// When it was used last; while its caller is a stranger, since when it stands.
    since: Instant,
    /// Its slot, where its caller is known.
    slot: Option<SlotHandle>,
}

/// A call under way.
struct UnderWay<'a> {
    activity: &'a Activity,
    #[expect(dead_code, reason = "held for its drop")]
    slot: Option<UsedSlot>,
}

/// The peer's side of the service.
#[derive(Clone)]
struct Calls {
    service: Arc<CertificateService>,
    peer: SocketAddr,
    /// Who has called last.
    caller: watch::Sender<Option<ConnectionSource>>,
}

/// Serves a connection until its peer leaves, it is idle for long, another one needs its place, or
/// `stop` says so.
pub(super) async fn serve<S>(
    stream: S,
    peer: SocketAddr,
    service: Arc<CertificateService>,
    mut place: ConnectionSlot,
    mut stop: watch::Receiver<bool>,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::new());
    let (caller, mut known) = watch::channel(None);
    let calls = Calls {
        service,
        peer,
        caller,
    };
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
            // The calls, which live as long as the connection, have the sender.
            Ok(()) = known.changed() => {
                let caller = known.borrow_and_update().clone();
                place.know(caller, &activity);
            }
            () = place.slot.displaced() => return made_room(peer),
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
    tokio::select! {
        closed = tokio::time::timeout(CLOSING, connection) => closed.unwrap_or(Ok(())),
        () = place.slot.displaced() => made_room(peer),
    }
}

fn made_room(peer: SocketAddr) -> hyper::Result<()> {
    tracing::debug!(%peer, "a connection made room for another");
    Ok(())
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

impl ConnectionSlot {
    /// Gives the connection a slot that counts towards its caller. It keeps the one that it has where
    /// all of those are in use.
    fn know(&mut self, caller: Option<ConnectionSource>, activity: &Activity) {
        if let Some(caller) = caller
            && let Ok(slot) = self.slots.take_known(caller)
        {
            activity.known(slot.handle());
            self.slot = slot;
        }
    }
}

impl Activity {
    fn new() -> Self {
        Self(Mutex::new(ConnectionUse {
            under_way: 0,
            since: Instant::now(),
            slot: None,
        }))
    }

    fn begin(&self) -> UnderWay<'_> {
        let mut usage = self.usage();
        usage.change(1);
        UnderWay {
            activity: self,
            slot: usage.slot.as_ref().map(SlotHandle::occupy),
        }
    }

    fn known(&self, slot: SlotHandle) {
        let mut usage = self.usage();
        usage.slot = Some(slot);
        usage.since = Instant::now();
    }

    /// How long until the connection is idle for too long.
    fn left(&self) -> Duration {
        let usage = self.usage();
        match (&usage.slot, usage.under_way) {
            (None, _) => STRANGER.saturating_sub(usage.since.elapsed()),
            (Some(_), 0) => IDLE.saturating_sub(usage.since.elapsed()),
            (Some(_), _) => IDLE,
        }
    }

    fn usage(&self) -> MutexGuard<'_, ConnectionUse> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionUse {
    fn change(&mut self, by: isize) {
        self.under_way = self.under_way.saturating_add_signed(by);
        if self.slot.is_some() {
            self.since = Instant::now();
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.activity.usage().change(-1);
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
        let Self {
            service,
            peer,
            caller,
        } = self.clone();
        Box::pin(async move {
            let authenticated = |known: &AuthenticatedCaller| {
                let known = Some(ConnectionSource::of(known));
                caller.send_if_modified(|last| {
                    let is_other = *last != known;
                    last.clone_from(&known);
                    is_other
                });
            };
            let (metadata, _, message) = request.into_parts();
            let headers = metadata.into_headers();
            let created = service
                .create_certificate(peer, &headers, &message, &authenticated)
                .await;
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
        let slot = ConnectionSlots::default().take([10, 0, 0, 1].into());
        activity.known(slot.expect("free").handle());
        activity.usage().since = ago(IDLE);
        assert!(activity.left().is_zero());
        let under_way = activity.begin();
        activity.usage().since = ago(IDLE);
        assert_eq!(activity.left(), IDLE);
        drop(under_way);
        assert!(!activity.left().is_zero());
    }

    #[test]
    fn a_stranger_gains_no_time_by_calling() {
        let activity = Activity::new();
        activity.usage().since = ago(STRANGER);
        let under_way = activity.begin();
        assert!(activity.left().is_zero());
        drop(under_way);
        assert!(activity.left().is_zero());
    }

    fn ago(time: Duration) -> Instant {
        let now = Instant::now();
        now.checked_sub(time)
            .expect("a machine that runs for a while")
    }
}
