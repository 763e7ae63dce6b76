//! The connections on which gRPC calls are made.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::CONNECT_TIMEOUT;
use crate::error::{CheckError, describe};
use crate::network::{Endpoint, PodNetwork};
use crate::usage::{ConnectionUse, InUse};

/// How often an authorizer that owes an answer is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The connection to one provider, if there is one. Locked while it is being made, so that checks at
/// the same time share it.
#[derive(Default)]
pub(super) struct ProviderConnection {
    connection: Mutex<Option<Connection>>,
    /// Where the provider was asked last.
    endpoint: RefCell<Option<Endpoint>>,
}

struct Connection {
    endpoint: Endpoint,
    sender: SendRequest<Full<Bytes>>,
    usage: Rc<ConnectionUse>,
}

/// Whether a connection has been used before.
pub(super) enum Age {
    New,
    Reused,
}

/// Makes a call.
pub(super) struct CallSender {
    sender: SendRequest<Full<Bytes>>,
    _in_use: InUse,
}

/// The connection failed: the authorizer said nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Broken(pub(super) String);

impl ProviderConnection {
    /// Where the provider was asked last.
    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        self.endpoint.borrow().clone()
    }

    /// Whether somebody uses it, or may yet.
    pub(super) fn is_open(&self) -> bool {
        self.connection.try_lock().map_or(true, |connection| {
            connection.as_ref().is_some_and(Connection::is_open)
        })
    }

    /// The connection to an endpoint, or a new one.
    ///
    /// # Errors
    /// [`CheckError::Unreachable`], [`CheckError::NoRoom`].
    pub(super) async fn caller(
        &self,
        network: &Rc<dyn PodNetwork>,
        endpoint: &Endpoint,
    ) -> Result<(CallSender, Age), CheckError> {
        let mut connection = self.connection.lock().await;
        if let Some(known) = &*connection
            && known.endpoint == *endpoint
            && known.is_open()
        {
            return Ok((known.caller(), Age::Reused));
        }
        self.endpoint.replace(Some(endpoint.clone()));
        let new = connect(network, endpoint).await?;
        let caller = new.caller();
        *connection = Some(new);
        Ok((caller, Age::New))
    }

    /// Gives up a connection that broke.
    pub(super) async fn forget(&self, broken: &Endpoint) {
        let mut connection = self.connection.lock().await;
        if connection
            .as_ref()
            .is_some_and(|one| one.endpoint == *broken && !one.is_open())
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
    endpoint: &Endpoint,
) -> Result<Connection, CheckError> {
    let address = endpoint.address();
    let connecting = async {
        let stream = network.connect(endpoint).await;
        let stream = stream.map_err(|error| CheckError::not_connected(address, error))?;
        let opened = Builder::new(Local(Rc::clone(network)))
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .handshake(TokioIo::new(stream))
            .await;
        opened.map_err(|error| CheckError::unreachable(address, &error))
    };
    let (sender, driver) = timeout(CONNECT_TIMEOUT, connecting)
        .await
        .unwrap_or_else(|late| Err(CheckError::unreachable(address, &late)))?;
    let usage = ConnectionUse::new();
    let used = Rc::clone(&usage);
    let driving = async move {
        tokio::select! {
            ended = driver => if let Err(error) = ended {
                tracing::debug!(%address, %error, "a connection to an external authorizer broke");
            },
            () = used.ended() => {}
        }
    };
    network.spawn(driving.boxed_local());
    Ok(Connection {
        endpoint: endpoint.clone(),
        sender,
        usage,
    })
}

/// Runs what a connection consists of where the connection is.
#[derive(Clone)]
struct Local(Rc<dyn PodNetwork>);

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        self.0.spawn(future.map(drop).boxed_local());
    }
}

impl CallSender {
    /// Sends a request and waits for the head of its response. The connection counts as used until
    /// the caller is dropped.
    ///
    /// # Errors
    /// [`Broken`].
    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Broken> {
        self.sender.ready().await.map_err(|error| broken(&error))?;
        let sent = self.sender.send_request(request).await;
        sent.map_err(|error| broken(&error))
    }
}

fn broken(error: &hyper::Error) -> Broken {
    Broken(describe(error))
}
