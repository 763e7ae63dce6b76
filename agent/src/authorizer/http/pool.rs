//! Idle connections to HTTP authorizers, of one shard.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::authorizer::CONNECT_TIMEOUT;
use crate::authorizer::error::CheckError;

/// Idle connections that are kept for each address.
const IDLE: usize = 16;

/// The idle connections by address. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Pool(Rc<RefCell<HashMap<SocketAddr, Vec<Sender>>>>);

type Sender = SendRequest<Full<Bytes>>;

/// A connection in use. Dropped, it is closed.
pub(super) struct Lease {
    pool: Pool,
    address: SocketAddr,
    sender: Sender,
}

impl Pool {
    /// Sends a request and waits for the head of its response. The authorizer may close an idle
    /// connection at any time; then a new one is made.
    ///
    /// # Errors
    /// [`CheckError::Unreachable`]; [`CheckError::Malformed`] for what is no HTTP.
    pub(super) async fn send(
        &self,
        address: SocketAddr,
        request: &Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Lease), CheckError> {
        if let Some(mut lease) = self.take(address)
            && let Ok(response) = lease.sender.send_request(request.clone()).await
        {
            return Ok((response, lease));
        }
        let mut lease = self.connect(address).await?;
        let response = lease.sender.send_request(request.clone()).await;
        let response = response.map_err(|error| broken(address, &error))?;
        Ok((response, lease))
    }

    fn take(&self, address: SocketAddr) -> Option<Lease> {
        let mut idle = self.0.borrow_mut();
        let senders = idle.get_mut(&address)?;
        senders.retain(Sender::is_ready);
        let sender = senders.pop()?;
        Some(Lease {
            pool: self.clone(),
            address,
            sender,
        })
    }

    async fn connect(&self, address: SocketAddr) -> Result<Lease, CheckError> {
        let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(connected) => connected.map_err(|error| unreachable(address, &error))?,
            Err(late) => return Err(unreachable(address, &late)),
        };
        // Without it a check may wait for an acknowledgement; it works all the same.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(address, &error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "a connection to an external authorizer broke");
            }
        });
        Ok(Lease {
            pool: self.clone(),
            address,
            sender,
        })
    }
}

impl Lease {
    /// Where the connection leads.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives the connection back, after all of the response has been read.
    pub(super) async fn give_back(mut self) {
        if self.sender.ready().await.is_err() {
            return;
        }
        let mut idle = self.pool.0.borrow_mut();
        idle.retain(|_, senders| {
            senders.retain(|sender| !sender.is_closed());
            !senders.is_empty()
        });
        let senders = idle.entry(self.address).or_default();
        if senders.len() < IDLE {
            senders.push(self.sender);
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

fn unreachable(address: SocketAddr, error: &dyn std::error::Error) -> CheckError {
    let problem = describe(error);
    CheckError::Unreachable { address, problem }
}

fn describe(error: &dyn std::error::Error) -> String {
    let mut problem = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        problem = format!("{problem}: {error}");
        cause = error.source();
    }
    problem
}
