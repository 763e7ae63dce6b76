//! Connections to authorizers: how they are opened, how long they are kept, and what has been received
//! on them.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until, timeout};

use crate::answer::CheckError;
use ambit_model::{ProviderService, ServiceEndpoint};

/// How long opening a connection may take. Istio's `connectTimeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(90);

/// How the checks of one pod reach authorizers: as the pod's own connections would.
pub trait PodNetwork {
    /// Where a service can be reached at this moment. Empty if no endpoint is ready.
    ///
    /// # Errors
    /// If the service is unknown, or its address leads nowhere.
    fn resolve<'a>(
        &'a self,
        service: &'a ProviderService,
    ) -> LocalBoxFuture<'a, io::Result<Vec<ServiceEndpoint>>>;

    /// Connects to an endpoint.
    ///
    /// # Errors
    /// [`NotConnected`].
    fn connect<'a>(
        &'a self,
        endpoint: &'a ServiceEndpoint,
    ) -> LocalBoxFuture<'a, Result<Box<dyn AuthorizerStream>, NotConnected>>;

    /// Runs a connection's driver until it completes or the pod is gone.
    fn spawn(&self, task: LocalBoxFuture<'static, ()>);
}

/// A connection to an authorizer.
pub trait AuthorizerStream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> AuthorizerStream for T {}

/// Why there is no connection. Displays as a sentence without the full stop.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotConnected {
    /// The authorizer cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The pod may not open more connections.
    #[error("{0}")]
    NoRoom(String),
}

/// Whether two endpoints are the same. Pods are compared by uid, since a successor may have the same
/// address.
pub(super) fn is_same_endpoint(one: &ServiceEndpoint, other: &ServiceEndpoint) -> bool {
    match (one, other) {
        (ServiceEndpoint::Pod(one), ServiceEndpoint::Pod(other)) => {
            one.address == other.address && one.workload.uid == other.workload.uid
        }
        (ServiceEndpoint::Outside(one), ServiceEndpoint::Outside(other)) => one == other,
        (ServiceEndpoint::Pod(_), ServiceEndpoint::Outside(_))
        | (ServiceEndpoint::Outside(_), ServiceEndpoint::Pod(_)) => false,
    }
}

/// Opens a connection, performs the HTTP handshake, and drives the connection until it has been unused
/// for a while.
///
/// # Errors
/// [`CheckError::Unreachable`], [`CheckError::NoRoom`].
pub(super) async fn open<S, D>(
    network: &Rc<dyn PodNetwork>,
    endpoint: &ServiceEndpoint,
    handshake: impl AsyncFnOnce(Box<dyn AuthorizerStream>) -> hyper::Result<(S, D)>,
) -> Result<(S, Rc<ConnectionUse>), CheckError>
where
    D: Future<Output = hyper::Result<()>> + 'static,
{
    let address = endpoint.address();
    let connecting = async {
        let stream = network.connect(endpoint).await;
        let stream = stream.map_err(|error| CheckError::not_connected(address, error))?;
        let opened = handshake(stream).await;
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
    Ok((sender, usage))
}

/// Counts the bytes received on a connection. Clones share the count.
#[derive(Clone, Debug, Default)]
pub(super) struct ReceivedBytes(Rc<Cell<u64>>);

/// A connection that counts the bytes it receives.
pub(super) struct CountedStream {
    stream: Box<dyn AuthorizerStream>,
    received: ReceivedBytes,
}

/// Which connection a check was sent on, and whether an answer has begun on it. An answer that begins
/// but does not end may have been a denial.
#[derive(Debug, Default)]
pub(super) struct AnswerProgress(RefCell<Option<Attempt>>);

#[derive(Debug)]
struct Attempt {
    address: SocketAddr,
    received: ReceivedBytes,
    before: u64,
}

impl ReceivedBytes {
    /// How many bytes were received.
    pub(super) fn bytes(&self) -> u64 {
        self.0.get()
    }

    /// Adds to the count.
    pub(super) fn add(&self, bytes: usize) {
        self.0.set(self.0.get() + bytes as u64);
    }
}

impl CountedStream {
    pub(super) fn new(stream: Box<dyn AuthorizerStream>, received: ReceivedBytes) -> Self {
        Self { stream, received }
    }
}

impl AnswerProgress {
    /// Records that a check is about to be sent on a connection.
    pub(super) fn ask(&self, address: SocketAddr, received: ReceivedBytes) {
        let before = received.bytes();
        self.0.replace(Some(Attempt {
            address,
            received,
            before,
        }));
    }

    /// Whether an answer has begun.
    pub(super) fn has_begun(&self) -> bool {
        let asked = self.0.borrow();
        asked
            .as_ref()
            .is_some_and(|asked| asked.received.bytes() > asked.before)
    }

    /// The error for an answer that began but did not end; `None` if none has begun.
    pub(super) fn broken_off(&self, problem: impl Into<String>) -> Option<CheckError> {
        let asked = self.0.borrow();
        let asked = asked.as_ref()?;
        (asked.received.bytes() > asked.before).then(|| CheckError::Malformed {
            address: asked.address,
            problem: format!("it began, but {}", problem.into()),
        })
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.received.add(buffer.filled().len() - before);
        read
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// How many checks use a connection, and when the last one ended.
#[derive(Debug)]
pub(super) struct ConnectionUse {
    checks: Cell<usize>,
    last: Cell<Instant>,
}

/// A check that uses a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionInUse(Rc<ConnectionUse>);

impl ConnectionUse {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            checks: Cell::new(0),
            last: Cell::new(Instant::now()),
        })
    }

    /// Records that a check begins.
    pub(super) fn begin(self: &Rc<Self>) -> ConnectionInUse {
        self.checks.set(self.checks.get() + 1);
        ConnectionInUse(Rc::clone(self))
    }

    /// Completes once the connection has been unused for [`IDLE`].
    pub(super) async fn ended(&self) {
        loop {
            let due = match self.checks.get() {
                0 => self.last.get() + IDLE,
                _ => Instant::now() + IDLE,
            };
            sleep_until(due).await;
            if self.checks.get() == 0 && self.last.get().elapsed() >= IDLE {
                return;
            }
        }
    }
}

impl Drop for ConnectionInUse {
    fn drop(&mut self) {
        self.0.checks.set(self.0.checks.get() - 1);
        self.0.last.set(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_only_after_it_was_unused_for_a_while() {
        let usage = ConnectionUse::new();
        let check = usage.begin();
        let mut ended = Box::pin(usage.ended());
        assert!((&mut ended).now_or_never().is_none());
        advance(3 * IDLE).await;
        assert!((&mut ended).now_or_never().is_none(), "it is in use");
        drop(check);
        advance(IDLE / 2).await;
        assert!((&mut ended).now_or_never().is_none(), "it was in use");
        ended.await;
    }
}
