//! One connection: its slot, its calls over HTTP/2, and when it ends.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
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

use crate::account::ServiceAccount;
use crate::caller::AuthenticatedCaller;
use crate::service::CertificateService;
use ambit_admission::{NoSeat, Occupied, Seat, SeatHandle, Seats, UnverifiedSource};
use ambit_ca_protocol::{CREATE_CERTIFICATE_PATH, CertificateRequest, CertificateResponse};

/// How many calls of a connection may be under way at a time.
const MAX_STREAMS: u32 = 32;

/// The largest head of a call, in bytes. It contains a token and little else.
const MAX_HEAD: u32 = 32 * 1024;

/// The largest message of a call, in bytes. A request for an RSA key's certificate has about two
/// thousand. Together with the number of streams this bounds the memory of a connection.
const MAX_MESSAGE: usize = 32 * 1024;

/// How long a call may take, from its head to its response.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may go without a call. Clients open another one when they need it.
const IDLE: Duration = Duration::from_secs(60);

/// How long a connection may exist without a valid token. A call may take its full time.
const STRANGER: Duration = CALL_TIMEOUT.saturating_add(Duration::from_secs(5));

/// How often a silent peer is pinged, and how long it has to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// How long calls under way have to end after the connection stops accepting new ones.
const CLOSING: Duration = CALL_TIMEOUT.saturating_add(Duration::from_secs(1));

/// How many connections without a valid token there may be.
const MAX_STRANGERS: usize = 1024;

/// How many connections of authenticated callers there may be.
const MAX_CALLERS: usize = 3072;

/// A connection's slot, and where to get another one once its caller is known.
pub(super) struct ConnectionSlot {
    pub(super) slots: ConnectionSlots,
    pub(super) slot: Slot,
}

/// The calls of a connection, and when it was last in use.
#[derive(Debug)]
struct Activity(Mutex<ConnectionUse>);

#[derive(Debug)]
struct ConnectionUse {
    under_way: usize,
    /// When it was last in use. Before its caller is known, when it was opened.
    since: Instant,
    /// Its slot, if its caller is known.
    slot: Option<SlotHandle>,
}

/// A call under way.
struct UnderWay<'a> {
    activity: &'a Activity,
    #[expect(dead_code, reason = "held for its drop")]
    slot: Option<UsedSlot>,
}

/// The service as one peer sees it.
#[derive(Clone)]
struct Calls {
    service: Arc<CertificateService>,
    peer: SocketAddr,
    /// The last authenticated caller.
    caller: watch::Sender<Option<ConnectionSource>>,
}

/// Serves a connection until its peer closes it, it is idle for too long, its slot is given to another,
/// or `stop` says so.
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
            // The sender is in `calls`, which live as long as the connection.
            Ok(()) = known.changed() => {
                let caller = known.borrow_and_update().clone();
                place.know(caller, &activity);
            }
            () = place.slot.displaced() => return made_room(peer),
            // An error means that the server is gone, which ends the connection too.
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
    /// Moves the connection to a slot that counts towards its caller. If none is available, the
    /// connection keeps its present one.
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

    /// How long until the connection has been idle for too long.
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
                let reason = format!("the call took longer than {CALL_TIMEOUT:?}");
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

/// What a connection's slot counts towards.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum ConnectionSource {
    /// An address from which no valid token has come on this connection.
    Stranger(UnverifiedSource),
    /// An account on the node that its token names.
    Caller(ServiceAccount, Option<Arc<str>>),
}

/// A connection's slot.
pub(super) type Slot = Seat<ConnectionSource>;

/// A handle by which calls mark the slot as in use.
pub(super) type SlotHandle = SeatHandle<ConnectionSource>;

/// A slot that a call is using.
pub(super) type UsedSlot = Occupied<ConnectionSource>;

/// The slots of all connections (see [`ambit_admission`]). Strangers compete with strangers only, and
/// make room for those from other addresses. A connection with a valid token counts towards its caller.
#[derive(Clone, Debug)]
pub(super) struct ConnectionSlots {
    strangers: Seats<ConnectionSource>,
    callers: Seats<ConnectionSource>,
}

impl ConnectionSource {
    pub(super) fn of(caller: &AuthenticatedCaller) -> Self {
        Self::Caller(caller.account.clone(), caller.node.clone())
    }
}

impl Default for ConnectionSlots {
    fn default() -> Self {
        Self::new(MAX_STRANGERS, MAX_CALLERS)
    }
}

impl ConnectionSlots {
    fn new(strangers: usize, callers: usize) -> Self {
        Self {
            strangers: Seats::new(strangers),
            callers: Seats::new(callers),
        }
    }

    /// Takes a slot for a connection of which only the address is known.
    ///
    /// # Errors
    /// [`NoSeat`].
    pub(super) fn take(&self, address: IpAddr) -> Result<Slot, NoSeat> {
        self.strangers
            .take(ConnectionSource::Stranger(UnverifiedSource::of(address)))
    }

    /// Takes a slot for a connection whose caller is known.
    ///
    /// # Errors
    /// [`NoSeat`]. The connection may keep its present slot.
    pub(super) fn take_known(&self, caller: ConnectionSource) -> Result<Slot, NoSeat> {
        self.callers.take(caller)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use crate::tests::caller;

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
    fn calls_of_a_stranger_do_not_extend_its_time() {
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

    fn address(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    #[test]
    fn many_strangers_of_one_address_do_not_shut_out_others() {
        let slots = ConnectionSlots::new(8, 8);
        let mut held: Vec<_> = (0..100)
            .map(|_| slots.take(address(1)).expect("the oldest goes"))
            .collect();
        assert!(held[0].displaced().now_or_never().is_some());
        let mut same = slots.take(address(1)).expect("the oldest goes");
        let mut other = slots.take(address(2)).expect("the oldest goes");
        assert!(same.displaced().now_or_never().is_none());
        assert!(other.displaced().now_or_never().is_none());
    }

    #[test]
    fn strangers_take_nothing_from_callers() {
        let slots = ConnectionSlots::new(1, 1);
        let web = ConnectionSource::of(&caller("shop/web", "web-0", Some("node-1")));
        let mut known = slots.take_known(web).expect("free");
        let _strangers: Vec<_> = (0..100).map(|number| slots.take(address(number))).collect();
        assert!(known.displaced().now_or_never().is_none());
    }

    #[test]
    fn a_call_under_way_keeps_its_slot() {
        let slots = ConnectionSlots::new(1, 1);
        let source = |node| ConnectionSource::of(&caller("shop/web", "web-0", Some(node)));
        let known = slots.take_known(source("node-1")).expect("free");
        let used = known.handle().occupy();
        assert!(slots.take_known(source("node-2")).is_err());
        drop(used);
        assert!(slots.take_known(source("node-2")).is_ok());
    }
}
