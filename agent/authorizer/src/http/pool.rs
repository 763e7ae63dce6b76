//! Connections to HTTP authorizers of one pod on one shard, and when one may be used again.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use crate::answer::{CheckError, describe};
use crate::check::CheckPeer;
use crate::connection::{
    AnswerProgress, ConnectionInUse, ConnectionUse, CountedStream, PodNetwork, ReceivedBytes,
    is_same_endpoint, open,
};
use ambit_model::{ServiceEndpoint, WorkloadIdentity};

/// How many idle connections are kept. Beyond that, the one that has been idle for longest is closed.
const IDLE: usize = 16;

/// The idle connections, ordered by how long they have been idle, the longest first. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Pool(Rc<RefCell<Vec<Connection>>>);

/// The caller whose checks a connection is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum CallerKey {
    /// A verified identity.
    Identity(WorkloadIdentity),
    /// The address of a plaintext caller.
    Address(IpAddr),
}

struct Connection {
    endpoint: ServiceEndpoint,
    caller: CallerKey,
    sender: SendRequest<Full<Bytes>>,
    received: ReceivedBytes,
    /// How many bytes had been received when it became idle.
    received_before: u64,
    usage: Rc<ConnectionUse>,
}

/// A connection in use. It is closed on drop, unless it is given back.
pub(super) struct ConnectionLease {
    pool: Pool,
    connection: Connection,
    reuse: Reuse,
    _in_use: ConnectionInUse,
}

impl CallerKey {
    /// The key for a check's caller.
    pub(super) fn of(source: &CheckPeer<'_>) -> Self {
        match source.principal {
            Some(identity) => Self::Identity(identity.clone()),
            None => Self::Address(source.address.ip().to_canonical()),
        }
    }
}

impl Pool {
    /// Sends a request and waits for the head of its response. If an idle connection turns out to be
    /// closed, a new one is opened.
    ///
    /// # Errors
    /// [`CheckError::Unreachable`]; [`CheckError::Malformed`] if the response is not HTTP or is cut
    /// short; [`CheckError::NoRoom`].
    pub(super) async fn send(
        &self,
        network: &Rc<dyn PodNetwork>,
        endpoint: &ServiceEndpoint,
        caller: &CallerKey,
        request: &Request<Full<Bytes>>,
        progress: &AnswerProgress,
    ) -> Result<(Response<Incoming>, ConnectionLease), CheckError> {
        if let Some(mut lease) = self.take(endpoint, caller) {
            match lease.send(request, progress).await {
                Ok(response) => return Ok((response, lease)),
                Err(error) if progress.has_begun() => return Err(lease.broken(&error, progress)),
                Err(_) => {}
            }
        }
        let connection = connect(network, endpoint, caller.clone()).await?;
        let mut lease = self.lease(connection);
        match lease.send(request, progress).await {
            Ok(response) => Ok((response, lease)),
            Err(error) => Err(lease.broken(&error, progress)),
        }
    }

    fn take(&self, endpoint: &ServiceEndpoint, caller: &CallerKey) -> Option<ConnectionLease> {
        let mut idle = self.0.borrow_mut();
        idle.retain(Connection::is_silent);
        let is_wanted =
            |one: &Connection| is_same_endpoint(&one.endpoint, endpoint) && one.caller == *caller;
        let place = idle.iter().rposition(is_wanted)?;
        let connection = idle.remove(place);
        Some(self.lease(connection))
    }

    fn lease(&self, connection: Connection) -> ConnectionLease {
        ConnectionLease {
            pool: self.clone(),
            _in_use: connection.usage.begin(),
            reuse: Reuse::Close,
            connection,
        }
    }
}

impl Connection {
    /// Whether it is open, and nothing was received while it was idle.
    fn is_silent(&self) -> bool {
        self.sender.is_ready() && self.received.bytes() == self.received_before
    }
}

async fn connect(
    network: &Rc<dyn PodNetwork>,
    endpoint: &ServiceEndpoint,
    caller: CallerKey,
) -> Result<Connection, CheckError> {
    let received = ReceivedBytes::default();
    let (sender, usage) = open(network, endpoint, async |stream| {
        let stream = CountedStream::new(stream, received.clone());
        http1::handshake(TokioIo::new(stream)).await
    })
    .await?;
    Ok(Connection {
        endpoint: endpoint.clone(),
        caller,
        sender,
        received,
        received_before: 0,
        usage,
    })
}

impl ConnectionLease {
    /// The authorizer's address.
    pub(super) fn address(&self) -> SocketAddr {
        self.connection.endpoint.address()
    }

    async fn send(
        &mut self,
        request: &Request<Full<Bytes>>,
        progress: &AnswerProgress,
    ) -> Result<Response<Incoming>, hyper::Error> {
        progress.ask(self.address(), self.connection.received.clone());
        let interim = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&interim);
        let mut sent = request.clone();
        hyper::ext::on_informational(&mut sent, move |_| seen.store(true, Ordering::Relaxed));
        let response = self.connection.sender.send_request(sent).await?;
        let interim = match interim.load(Ordering::Relaxed) {
            true => Interim::Some,
            false => Interim::None,
        };
        self.reuse = reuse_after(request, interim, &response);
        Ok(response)
    }

    fn broken(&self, error: &hyper::Error, progress: &AnswerProgress) -> CheckError {
        let (address, problem) = (self.address(), describe(error));
        if error.is_parse() {
            return CheckError::Malformed { address, problem };
        }
        let begun = progress.broken_off(format!("broke off: {problem}"));
        begun.unwrap_or(CheckError::Unreachable { address, problem })
    }

    /// Returns the connection to the pool, if it may be used again. The whole response must have been
    /// read.
    pub(super) async fn give_back(mut self) {
        if self.reuse == Reuse::Close || self.connection.sender.ready().await.is_err() {
            return;
        }
        self.connection.received_before = self.connection.received.bytes();
        let mut idle = self.pool.0.borrow_mut();
        idle.retain(Connection::is_silent);
        if idle.len() == IDLE {
            idle.remove(0);
        }
        idle.push(self.connection);
    }
}

/// What happens to a connection after an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reuse {
    /// It may be used for another check, once the whole response has been read.
    Keep,
    /// It is closed.
    Close,
}

/// Decides whether nothing can still arrive on a connection after an exchange. A late response would be
/// taken for the answer to the next check. What counts is the request, whether interim responses came,
/// and the head of the response.
///
/// Some servers send a body in response to HEAD, or with 204 or 304. A server that does not read a
/// request's body takes it for the next request, and answers it.
fn reuse_after<B>(
    request: &Request<Full<Bytes>>,
    interim: Interim,
    response: &Response<B>,
) -> Reuse {
    let has_no_body = *request.method() == Method::HEAD
        || matches!(
            response.status(),
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
        );
    let is_plain = response.version() == Version::HTTP_11
        && !response.status().is_informational()
        && !asks_to_close(response.headers())
        && is_framed_once(response.headers());
    let sent_body = !request.body().is_end_stream();
    match (is_plain, interim) {
        (true, Interim::None) if !has_no_body && !sent_body => Reuse::Keep,
        _ => Reuse::Close,
    }
}

/// Whether interim responses (1xx) came before the response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Interim {
    /// There were none.
    None,
    /// There were some.
    Some,
}

fn asks_to_close(headers: &HeaderMap) -> bool {
    let is_keep_alive =
        |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"keep-alive");
    !headers.get_all(CONNECTION).iter().all(is_keep_alive)
}

/// Whether exactly one header determines where the body ends.
fn is_framed_once(headers: &HeaderMap) -> bool {
    let lengths = headers.get_all(CONTENT_LENGTH).iter().count();
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    match (lengths, encodings.next(), encodings.next()) {
        (1, None, _) => true,
        (0, Some(encoding), None) => encoding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reuse(
        (method, body): (Method, &'static str),
        interim: Interim,
        (status, lines): (u16, &[(&'static str, &'static str)]),
    ) -> Reuse {
        let mut request = Request::new(Full::new(Bytes::from_static(body.as_bytes())));
        *request.method_mut() = method;
        let mut response = Response::builder().status(status);
        for &(name, value) in lines {
            response = response.header(name, value);
        }
        reuse_after(&request, interim, &response.body(()).expect("a response"))
    }

    #[test]
    fn only_after_an_ordinary_exchange_may_a_connection_be_used_again() {
        let length = &[("content-length", "2")][..];
        let chunked = &[("transfer-encoding", "chunked")][..];
        for lines in [
            length,
            chunked,
            &[("content-length", "0"), ("connection", "Keep-Alive")],
        ] {
            let kept = reuse((Method::GET, ""), Interim::None, (200, lines));
            assert_eq!(kept, Reuse::Keep, "{lines:?}");
        }
        for (request, interim, answer) in [
            ((Method::HEAD, ""), Interim::None, (200, length)),
            ((Method::POST, "body"), Interim::None, (200, length)),
            ((Method::GET, ""), Interim::Some, (200, length)),
            ((Method::GET, ""), Interim::None, (204, length)),
            ((Method::GET, ""), Interim::None, (205, length)),
            ((Method::GET, ""), Interim::None, (304, length)),
            ((Method::GET, ""), Interim::None, (101, length)),
            ((Method::GET, ""), Interim::None, (200, &[])),
            (
                (Method::GET, ""),
                Interim::None,
                (200, &[("content-length", "2"), ("content-length", "2")]),
            ),
            (
                (Method::GET, ""),
                Interim::None,
                (
                    200,
                    &[("content-length", "2"), ("transfer-encoding", "chunked")],
                ),
            ),
            (
                (Method::GET, ""),
                Interim::None,
                (200, &[("transfer-encoding", "gzip, chunked")]),
            ),
            (
                (Method::GET, ""),
                Interim::None,
                (200, &[("content-length", "2"), ("connection", "close")]),
            ),
        ] {
            let closed = reuse(request.clone(), interim, answer);
            assert_eq!(closed, Reuse::Close, "{request:?} {answer:?}");
        }
        let mut old = Response::builder().header("content-length", "0");
        old = old.version(Version::HTTP_10);
        let request = Request::new(Full::new(Bytes::new()));
        let closed = reuse_after(&request, Interim::None, &old.body(()).expect("a response"));
        assert_eq!(closed, Reuse::Close);
    }
}
