//! The client for gRPC authorizers. It keeps one HTTP/2 connection to each provider, which all callers
//! share, since its streams are independent.

mod request;
mod response;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, Uri, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Mutex;

use crate::answer::{AuthorizerAnswer, CheckError, describe};
use crate::check::AuthorizationCheck;
use crate::connection::{
    AnswerProgress, ConnectionInUse, ConnectionUse, PodNetwork, ReceivedBytes, is_same_endpoint,
    open,
};
use crate::envoy::{CHECK_PATH, CheckRequest};
use crate::resolve::in_turn;
use ambit_model::{ExtensionProvider, ProviderService, ServiceEndpoint};
use request::check_request;
use response::{NoAnswer, check_call, read};

/// How often an authorizer that owes an answer is pinged.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The connections of one pod on one shard.
#[derive(Default)]
pub(super) struct GrpcClient {
    kept: RefCell<HashMap<ProviderService, Rc<ProviderConnection>>>,
}

impl GrpcClient {
    /// Sends a check to an endpoint, and to the next one if it cannot be reached.
    ///
    /// # Errors
    /// [`CheckError`].
    pub(super) async fn check(
        &self,
        network: &Rc<dyn PodNetwork>,
        provider: &ExtensionProvider,
        endpoints: &[ServiceEndpoint],
        check: &AuthorizationCheck<'_>,
        progress: &AnswerProgress,
    ) -> Result<AuthorizerAnswer, CheckError> {
        let message = check_request(provider, check);
        let service = &provider.service;
        let kept = self.kept(service);
        in_turn(service, endpoints, kept.endpoint(), async |endpoint| {
            let asked = CheckAttempt {
                service,
                message: &message,
                address: endpoint.address(),
                progress,
            };
            let (caller, age) = kept.caller(network, endpoint).await?;
            let called = match (asked.call(caller).await, age) {
                // The connection may have been closed for its age before this check arrived.
                (Err(CallError::Broken(_)), ConnectionAge::Reused) => {
                    kept.forget(endpoint).await;
                    let (caller, _) = kept.caller(network, endpoint).await?;
                    asked.call(caller).await
                }
                (called, _) => called,
            };
            if let Err(CallError::Broken(_)) = &called {
                kept.forget(endpoint).await;
            }
            called.map_err(|error| error.at(endpoint.address()))
        })
        .await
    }

    /// The connection to a provider. Closed connections to other providers are forgotten.
    fn kept(&self, service: &ProviderService) -> Rc<ProviderConnection> {
        let mut all = self.kept.borrow_mut();
        if let Some(known) = all.get(service) {
            return Rc::clone(known);
        }
        all.retain(|_, kept| Rc::strong_count(kept) > 1 || kept.is_open());
        Rc::clone(all.entry(service.clone()).or_default())
    }
}

/// The head of every check.
pub(super) fn check_head(service: &ProviderService) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = Method::POST;
    *head.uri_mut() = Uri::from_static(CHECK_PATH);
    *head.version_mut() = Version::HTTP_2;
    let grpc = HeaderValue::from_static("application/grpc");
    head.headers_mut().insert(CONTENT_TYPE, grpc);
    if let Ok(host) = format!("{}:{}", service.host, service.port).try_into() {
        head.headers_mut().insert(HOST, host);
    }
    head
}

/// A check to be sent to an endpoint.
struct CheckAttempt<'a> {
    service: &'a ProviderService,
    message: &'a CheckRequest,
    address: SocketAddr,
    progress: &'a AnswerProgress,
}

/// Why a call has no usable answer.
enum CallError {
    /// No request can be sent to a service of this name.
    NotAskable,
    /// The connection failed, and the authorizer said nothing.
    Broken(BrokenConnection),
    /// The response is not a usable answer.
    NoAnswer(NoAnswer),
}

impl CheckAttempt<'_> {
    async fn call(&self, mut caller: CallSender) -> Result<AuthorizerAnswer, CallError> {
        let request = check_call(self.service, self.message).ok_or(CallError::NotAskable)?;
        let received = ReceivedBytes::default();
        self.progress.ask(self.address, received.clone());
        let response = caller.send(request).await.map_err(CallError::Broken)?;
        received.add(1);
        read(response).await.map_err(CallError::NoAnswer)
    }
}

impl CallError {
    fn at(self, address: SocketAddr) -> CheckError {
        match self {
            Self::NotAskable => CheckError::NotAskable("no request can be sent to its service"),
            Self::Broken(BrokenConnection(problem))
            | Self::NoAnswer(NoAnswer::Unavailable(problem)) => {
                CheckError::Unreachable { address, problem }
            }
            Self::NoAnswer(NoAnswer::Failed(problem)) => CheckError::Failed { address, problem },
            Self::NoAnswer(NoAnswer::NotTaken(problem)) => {
                CheckError::NotTaken { address, problem }
            }
            Self::NoAnswer(NoAnswer::Malformed(problem)) => {
                CheckError::Malformed { address, problem }
            }
        }
    }
}

/// The connection to one provider, if there is one. It is locked while it is being opened, so that
/// checks at the same time share it.
#[derive(Default)]
pub(super) struct ProviderConnection {
    connection: Mutex<Option<Connection>>,
    /// The endpoint that was used last.
    endpoint: RefCell<Option<ServiceEndpoint>>,
}

struct Connection {
    endpoint: ServiceEndpoint,
    sender: SendRequest<Full<Bytes>>,
    usage: Rc<ConnectionUse>,
}

/// Whether a connection has been used before.
pub(super) enum ConnectionAge {
    New,
    Reused,
}

/// Sends one request on a connection.
pub(super) struct CallSender {
    sender: SendRequest<Full<Bytes>>,
    _in_use: ConnectionInUse,
}

/// The connection failed, and the authorizer said nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct BrokenConnection(pub(super) String);

impl ProviderConnection {
    /// The endpoint that was used last.
    pub(super) fn endpoint(&self) -> Option<ServiceEndpoint> {
        self.endpoint.borrow().clone()
    }

    /// Whether the connection is open or being opened.
    pub(super) fn is_open(&self) -> bool {
        self.connection.try_lock().map_or(true, |connection| {
            connection.as_ref().is_some_and(Connection::is_open)
        })
    }

    /// The connection to an endpoint. A new one is opened if there is none.
    ///
    /// # Errors
    /// [`CheckError::Unreachable`], [`CheckError::NoRoom`].
    pub(super) async fn caller(
        &self,
        network: &Rc<dyn PodNetwork>,
        endpoint: &ServiceEndpoint,
    ) -> Result<(CallSender, ConnectionAge), CheckError> {
        let mut connection = self.connection.lock().await;
        if let Some(known) = &*connection
            && is_same_endpoint(&known.endpoint, endpoint)
            && known.is_open()
        {
            return Ok((known.caller(), ConnectionAge::Reused));
        }
        self.endpoint.replace(Some(endpoint.clone()));
        let new = connect(network, endpoint).await?;
        let caller = new.caller();
        *connection = Some(new);
        Ok((caller, ConnectionAge::New))
    }

    /// Drops the connection to an endpoint if it is closed.
    pub(super) async fn forget(&self, broken: &ServiceEndpoint) {
        let mut connection = self.connection.lock().await;
        if connection
            .as_ref()
            .is_some_and(|one| is_same_endpoint(&one.endpoint, broken) && !one.is_open())
        {
            *connection = None;
        }
    }
}

impl Connection {
    fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    fn caller(&self) -> CallSender {
        CallSender {
            sender: self.sender.clone(),
            _in_use: self.usage.begin(),
        }
    }
}

async fn connect(
    network: &Rc<dyn PodNetwork>,
    endpoint: &ServiceEndpoint,
) -> Result<Connection, CheckError> {
    let (sender, usage) = open(network, endpoint, async |stream| {
        Builder::new(Local(Rc::clone(network)))
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .handshake(TokioIo::new(stream))
            .await
    })
    .await?;
    Ok(Connection {
        endpoint: endpoint.clone(),
        sender,
        usage,
    })
}

/// Runs the tasks of a connection on the pod's network.
#[derive(Clone)]
struct Local(Rc<dyn PodNetwork>);

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        self.0.spawn(future.map(drop).boxed_local());
    }
}

impl CallSender {
    /// Sends a request and waits for the head of its response. The connection counts as used until this
    /// is dropped.
    ///
    /// # Errors
    /// [`BrokenConnection`].
    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, BrokenConnection> {
        self.sender.ready().await.map_err(|error| broken(&error))?;
        let sent = self.sender.send_request(request).await;
        sent.map_err(|error| broken(&error))
    }
}

fn broken(error: &hyper::Error) -> BrokenConnection {
    BrokenConnection(describe(error))
}
