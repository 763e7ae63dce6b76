//! A client, the proxy and an application, over loopback connections.

mod bodies;
mod break_offs;
mod giving_up;
mod http1;
mod http2;
mod http2_bodies;
mod http2_connect;
mod http2_connections;
mod http2_heads;

mod hyper_server;
mod malformed;
mod protocol;
mod tunnel;
mod upgrade;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use ambit_account::{AccountExhausted, NodeAccount, PodAccount};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::timeout;

use super::{
    BodyError, Gate, HttpLimits, InjectedHeaders, JudgedBody, NotHttp, PermittedRequest, Rejection,
    RequestHead, RequestOutcome, RequestSummary, ServeOutcome, serve,
};
use ambit_authorizer::HeaderMutations;
use ambit_datapath::RequestStream;
use ambit_policy::RequestPermit;
use ambit_relay::{Meter, Party};

/// How long a test waits for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// The length of a body that does not fit into the buffers on its way.
const LARGE: usize = 5 << 20;

/// Denies `/denied` and below, and changes `/to-rewrite` into `/rewritten`. If a request has `x-show`,
/// it reads that many bytes of the body before.
#[derive(Clone)]
struct TestGate(Rc<Judged>);

struct Judged {
    heads: RefCell<Vec<RequestHead>>,
    shown: RefCell<Vec<Result<String, BodyError>>>,
    finished: RefCell<Vec<RequestSummary>>,
    revoked: watch::Sender<bool>,
    /// Takes further connections to the application, if it accepts them.
    reconnected: RefCell<Option<mpsc::UnboundedSender<TcpStream>>>,
    /// Which party has closed its socket, as far as that can be learned.
    closed: Cell<Option<Party>>,
}

struct TestGrant {
    permit: RequestPermit,
    revoked: watch::Receiver<bool>,
    judged: Rc<Judged>,
}

impl Gate for TestGate {
    type Permitted = TestGrant;

    async fn decide(
        &self,
        head: &mut RequestHead,
        body: &mut impl JudgedBody,
    ) -> Result<TestGrant, Rejection> {
        self.0.heads.borrow_mut().push(head.clone());
        if let Some(wanted) = head.headers.remove("x-show") {
            let wanted = wanted.to_str().unwrap().parse().unwrap();
            let shown = read_ahead(head, body, wanted).await;
            let rejected = shown.as_ref().err().map(|error| rejection(error.status()));
            self.0.shown.borrow_mut().push(shown);
            rejected.map_or(Ok(()), Err)?;
        }
        if head.target.starts_with("/denied") {
            return Err(Rejection {
                body: Bytes::from_static(b"RBAC: access denied"),
                ..rejection(StatusCode::FORBIDDEN)
            });
        }
        if head.target == "/to-rewrite" {
            head.target = "/rewritten".to_owned();
            head.headers.remove("x-untrusted");
        }
        Ok(TestGrant {
            permit: RequestPermit::for_test(),
            revoked: self.0.revoked.subscribe(),
            judged: Rc::clone(&self.0),
        })
    }

    fn has_closed(&self, party: Party, _: &TcpStream) -> bool {
        self.0.closed.get() == Some(party)
    }

    fn memory(&self) -> PodAccount {
        NodeAccount::new(64 << 20).pod()
    }

    fn out_of_memory(&self, _: AccountExhausted) {}

    async fn reconnect(&self) -> Option<RequestStream> {
        let (dialled, accepted) = tcp_pair().await;
        self.0.reconnected.borrow().as_ref()?.send(accepted).ok()?;
        Some(RequestStream::for_test(dialled))
    }
}

/// Reads this much of a body, and puts it back.
async fn read_ahead(
    head: &mut RequestHead,
    body: &mut impl JudgedBody,
    wanted: usize,
) -> Result<String, BodyError> {
    let mut read = Vec::new();
    while read.len() < wanted
        && let Some(data) = body.next(head).await?
    {
        read.extend_from_slice(&data);
    }
    body.put_back(read.clone().into());
    Ok(String::from_utf8_lossy(&read).into_owned())
}

fn rejection(status: StatusCode) -> Rejection {
    Rejection {
        status,
        headers: HeaderMap::new(),
        body: Bytes::new(),
    }
}

impl PermittedRequest for TestGrant {
    fn response_mutations(&mut self) -> Vec<HeaderMutations> {
        Vec::new()
    }

    fn injected_headers(&mut self) -> InjectedHeaders {
        let mut injected_headers = InjectedHeaders::default();
        injected_headers.add(&http::HeaderName::from_static("x-auth-user"));
        injected_headers
    }

    fn permit(&self) -> &RequestPermit {
        &self.permit
    }

    async fn revoked(&mut self) {
        self.revoked.wait_for(|&revoked| revoked).await.unwrap();
    }

    fn finish(self, exchange: &RequestSummary) {
        self.judged.finished.borrow_mut().push(*exchange);
    }
}

/// A served connection: both ends, and the gate.
struct Scene {
    client: TcpStream,
    application: TcpStream,
    gate: TestGate,
    meter: Rc<Meter>,
    serving: JoinHandle<ServeOutcome<TcpStream>>,
}

impl Scene {
    async fn new() -> Self {
        Self::with(HttpLimits::default()).await
    }

    async fn with(limits: HttpLimits) -> Self {
        let (client, downstream) = tcp_pair().await;
        let (dialled, application) = tcp_pair().await;
        let gate = TestGate::new();
        let meter = Rc::new(Meter::default());
        let (judge, counted) = (gate.clone(), Rc::clone(&meter));
        let serving = spawn_local(async move {
            let dialled = RequestStream::for_test(dialled);
            serve(downstream, dialled, &judge, limits, &counted).await
        });
        Self {
            client,
            application,
            gate,
            meter,
            serving,
        }
    }

    /// Sends these bytes as the client, and expects those at the application.
    async fn pass(&mut self, sent: &str, expected: &str) {
        self.client.write_all(sent.as_bytes()).await.unwrap();
        expect(&mut self.application, expected).await;
    }

    /// Sends these bytes as the application, and expects those at the client.
    async fn answer(&mut self, sent: &str, expected: &str) {
        self.application.write_all(sent.as_bytes()).await.unwrap();
        expect(&mut self.client, expected).await;
    }

    /// Waits until the connection has been served, and ensures that the application received no byte
    /// that was not read.
    async fn ensure_nothing_sent(self) {
        self.serving.await.unwrap();
        let mut application = self.application;
        let mut rest = Vec::new();
        let _ = application.read_to_end(&mut rest).await;
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

impl TestGate {
    fn new() -> Self {
        Self(Rc::new(Judged {
            heads: RefCell::default(),
            shown: RefCell::default(),
            finished: RefCell::default(),
            revoked: watch::channel(false).0,
            reconnected: RefCell::default(),
            closed: Cell::default(),
        }))
    }

    fn revoke(&self) {
        self.0.revoked.send_replace(true);
    }

    /// The parts of bodies that the gate has read.
    fn shown(&self) -> Vec<Result<String, BodyError>> {
        self.0.shown.borrow().clone()
    }

    fn targets(&self) -> Vec<String> {
        let heads = self.0.heads.borrow();
        heads.iter().map(|head| head.target.clone()).collect()
    }

    fn outcomes(&self) -> Vec<RequestOutcome> {
        let finished = self.0.finished.borrow();
        finished.iter().map(|exchange| exchange.outcome).collect()
    }
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap());
    let (dialled, accepted) = tokio::join!(dialled, listener.accept());
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap().0);
    dialled.set_nodelay(true).unwrap();
    (dialled, accepted)
}

fn run(test: impl Future<Output = ()>) {
    run_within(PATIENCE, test);
}

fn run_within(limit: Duration, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let bounded = async { timeout(limit, test).await.expect("in time") };
    LocalSet::new().block_on(&runtime, bounded);
}

/// Reads exactly these bytes.
async fn expect(stream: &mut TcpStream, expected: &str) {
    let mut got = Vec::new();
    while got.len() < expected.len() {
        let rest = (expected.len() - got.len()) as u64;
        let read = (&mut *stream).take(rest).read_buf(&mut got).await.unwrap();
        assert_ne!(read, 0, "ended after {:?}", String::from_utf8_lossy(&got));
    }
    assert_eq!(String::from_utf8_lossy(&got), expected);
}

/// Reads to an orderly end.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    String::from_utf8_lossy(&all).into_owned()
}

async fn ensure_reset(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest).await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
}
