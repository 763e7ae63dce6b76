//! Idle connections to HTTP authorizers, of one pod on one shard.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::reuse::{self, Interim, Reuse};
use crate::CONNECT_TIMEOUT;
use crate::check::CheckPeer;
use crate::error::{CheckError, describe};
use crate::hearing::{AnswerProgress, CountedStream, ReceivedBytes};
use crate::network::{Endpoint, PodNetwork};
use crate::usage::{ConnectionUse, InUse};
use ambit_model::WorkloadIdentity;

/// Idle connections that are kept. One more closes the one that has been idle for longest.
const IDLE: usize = 16;

/// The idle connections, the longest idle one first. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Pool(Rc<RefCell<Vec<Connection>>>);

/// Whose checks a connection is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum CallerKey {
    /// A verified identity's.
    Identity(WorkloadIdentity),
    /// Those of plaintext from an address.
    Address(IpAddr),
}

struct Connection {
    endpoint: Endpoint,
    caller: CallerKey,
    sender: SendRequest<Full<Bytes>>,
    heard: ReceivedBytes,
    /// What had been heard when it became idle.
    heard_before: u64,
    usage: Rc<ConnectionUse>,
}

/// A connection in use. Dropped, it is closed.
pub(super) struct Lease {
    pool: Pool,
    connection: Connection,
    reuse: Reuse,
    _in_use: InUse,
}

impl CallerKey {
    /// The key of a caller.
    pub(super) fn of(source: &CheckPeer<'_>) -> Self {
        match source.principal {
            Some(identity) => Self::Identity(identity.clone()),
            None => Self::Address(source.address.ip().to_canonical()),
        }
    }
}

impl Pool {
    /// Sends a request and waits for the head of its response. The authorizer may close an idle
    /// connection at any time; then a new one is made.
    ///
    /// # Errors
    /// [`CheckError::Unreachable`]; [`CheckError::Malformed`] for what is not HTTP or breaks off;
    /// [`CheckError::NoRoom`].
    pub(super) async fn send(
        &self,
        network: &Rc<dyn PodNetwork>,
        (endpoint, caller): (&Endpoint, &CallerKey),
        request: &Request<Full<Bytes>>,
        hearing: &AnswerProgress,
    ) -> Result<(Response<Incoming>, Lease), CheckError> {
        if let Some(mut lease) = self.take(endpoint, caller) {
            match lease.send(request, hearing).await {
                Ok(response) => return Ok((response, lease)),
                Err(error) if hearing.has_begun() => return Err(lease.broken(&error, hearing)),
                Err(_) => {}
            }
        }
        let connection = connect(network, endpoint, caller.clone()).await?;
        let mut lease = self.lease(connection);
        match lease.send(request, hearing).await {
            Ok(response) => Ok((response, lease)),
            Err(error) => Err(lease.broken(&error, hearing)),
        }
    }

    fn take(&self, endpoint: &Endpoint, caller: &CallerKey) -> Option<Lease> {
        let mut idle = self.0.borrow_mut();
        idle.retain(Connection::is_silent);
        let is_wanted = |one: &Connection| one.endpoint == *endpoint && one.caller == *caller;
        let place = idle.iter().rposition(is_wanted)?;
        let connection = idle.remove(place);
        Some(self.lease(connection))
    }

    fn lease(&self, connection: Connection) -> Lease {
        Lease {
            pool: self.clone(),
            _in_use: connection.usage.begin(),
            reuse: Reuse::Close,
            connection,
        }
    }
}

impl Connection {
    /// Whether it is open, and nothing came on it while it was idle.
    fn is_silent(&self) -> bool {
        self.sender.is_ready() && self.heard.bytes() == self.heard_before
    }
}

async fn connect(
    network: &Rc<dyn PodNetwork>,
    endpoint: &Endpoint,
    caller: CallerKey,
) -> Result<Connection, CheckError> {
    let address = endpoint.address();
    let heard = ReceivedBytes::default();
    let connecting = async {
        let stream = network.connect(endpoint).await;
        let stream = stream.map_err(|error| CheckError::not_connected(address, error))?;
        let stream = CountedStream::new(stream, heard.clone());
        let opened = http1::handshake(TokioIo::new(stream)).await;
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
        caller,
        sender,
        heard,
        heard_before: 0,
        usage,
    })
}

impl Lease {
    /// Where the connection leads.
    pub(super) fn address(&self) -> SocketAddr {
        self.connection.endpoint.address()
    }

    async fn send(
        &mut self,
        request: &Request<Full<Bytes>>,
        hearing: &AnswerProgress,
    ) -> Result<Response<Incoming>, hyper::Error> {
        hearing.ask(self.address(), self.connection.heard.clone());
        let interim = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&interim);
        let mut sent = request.clone();
        hyper::ext::on_informational(&mut sent, move |_| seen.store(true, Ordering::Relaxed));
        let response = self.connection.sender.send_request(sent).await?;
        let interim = match interim.load(Ordering::Relaxed) {
            true => Interim::Some,
            false => Interim::None,
        };
        self.reuse = reuse::after(request, interim, &response);
        Ok(response)
    }

    fn broken(&self, error: &hyper::Error, hearing: &AnswerProgress) -> CheckError {
        let (address, problem) = (self.address(), describe(error));
        if error.is_parse() {
            return CheckError::Malformed { address, problem };
        }
        let begun = hearing.broken_off(format!("broke off: {problem}"));
        begun.unwrap_or(CheckError::Unreachable { address, problem })
    }

    /// Gives the connection back, after all of the response has been read, if it may be used again.
    pub(super) async fn give_back(mut self) {
        if self.reuse == Reuse::Close || self.connection.sender.ready().await.is_err() {
            return;
        }
        self.connection.heard_before = self.connection.heard.bytes();
        let mut idle = self.pool.0.borrow_mut();
        idle.retain(Connection::is_silent);
        if idle.len() == IDLE {
            idle.remove(0);
        }
        idle.push(self.connection);
    }
}
