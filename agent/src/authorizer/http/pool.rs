//! Idle connections to HTTP authorizers, of one pod on one shard.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::authorizer::CONNECT_TIMEOUT;
use crate::authorizer::error::{CheckError, describe};
use crate::authorizer::network::{Endpoint, Network};
use crate::authorizer::usage::{InUse, Usage};

/// Idle connections that are kept.
const IDLE: usize = 16;

/// The idle connections. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Pool(Rc<RefCell<Vec<Connection>>>);

struct Connection {
    endpoint: Endpoint,
    sender: SendRequest<Full<Bytes>>,
    usage: Rc<Usage>,
}

/// A connection in use. Dropped, it is closed.
pub(super) struct Lease {
    pool: Pool,
    connection: Connection,
    _in_use: InUse,
}

impl Pool {
    /// Sends a request and waits for the head of its response. The authorizer may close an idle
    /// connection at any time; then a new one is made.
    ///
    /// # Errors
    /// [`CheckError::Unreachable`]; [`CheckError::Malformed`] for what is no HTTP;
    /// [`CheckError::NoRoom`].
    pub(super) async fn send(
        &self,
        network: &Rc<dyn Network>,
        endpoint: &Endpoint,
        request: &Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Lease), CheckError> {
        if let Some(mut lease) = self.take(endpoint)
            && let Ok(response) = lease.send(request).await
        {
            return Ok((response, lease));
        }
        let mut lease = self.lease(connect(network, endpoint).await?);
        let response = lease.send(request).await;
        let response = response.map_err(|error| broken(endpoint.address(), &error))?;
        Ok((response, lease))
    }

    fn take(&self, endpoint: &Endpoint) -> Option<Lease> {
        let mut idle = self.0.borrow_mut();
        idle.retain(|connection| connection.sender.is_ready());
        let place = idle.iter().rposition(|one| one.endpoint == *endpoint)?;
        let connection = idle.remove(place);
        Some(self.lease(connection))
    }

    fn lease(&self, connection: Connection) -> Lease {
        Lease {
            pool: self.clone(),
            _in_use: connection.usage.begin(),
            connection,
        }
    }
}

async fn connect(network: &Rc<dyn Network>, endpoint: &Endpoint) -> Result<Connection, CheckError> {
    let address = endpoint.address();
    let connecting = async {
        let stream = network.connect(endpoint).await;
        let stream = stream.map_err(|error| CheckError::not_connected(address, error))?;
        let opened = http1::handshake(TokioIo::new(stream)).await;
        opened.map_err(|error| CheckError::unreachable(address, &error))
    };
    let (sender, driver) = timeout(CONNECT_TIMEOUT, connecting)
        .await
        .unwrap_or_else(|late| Err(CheckError::unreachable(address, &late)))?;
    let usage = Usage::new();
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

impl Lease {
    /// Where the connection leads.
    pub(super) fn address(&self) -> SocketAddr {
        self.connection.endpoint.address()
    }

    async fn send(
        &mut self,
        request: &Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        self.connection.sender.send_request(request.clone()).await
    }

    /// Gives the connection back, after all of the response has been read.
    pub(super) async fn give_back(mut self) {
        if self.connection.sender.ready().await.is_err() {
            return;
        }
        let mut idle = self.pool.0.borrow_mut();
        idle.retain(|connection| !connection.sender.is_closed());
        if idle.len() < IDLE {
            idle.push(self.connection);
        }
    }
}

fn broken(address: SocketAddr, error: &hyper::Error) -> CheckError {
    let problem = describe(error);
    if error.is_parse() {
        return CheckError::Malformed { address, problem };
    }
    CheckError::Unreachable { address, problem }
}
