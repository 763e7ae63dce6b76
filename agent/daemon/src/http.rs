//! A small HTTP/1.1 server with bounds: one request for each connection.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use ambit_admission::{Seat, Seats, UnverifiedSource};

/// A response.
pub type HttpResponse = Response<Full<Bytes>>;

/// The bounds of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HttpBounds {
    /// What the server is for, in log lines: `an admin`, `a metrics`.
    pub name: &'static str,
    /// The number of connections.
    pub connections: ConnectionBound,
    /// How long a client may take to send the head of its request.
    pub head_timeout: Duration,
    /// How long the whole exchange may take; `None`: as long as it needs.
    pub exchange_timeout: Option<Duration>,
    /// The pause after a connection could not be accepted.
    pub accept_pause: Duration,
}

/// How many connections a server has at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionBound {
    /// Any number: for a socket to which only the operator can connect.
    Unbounded,
    /// This many; others wait to be accepted.
    Queued(usize),
    /// This many; one more displaces the oldest of the source that has the most.
    Displacing(usize),
}

/// A source of connections.
pub trait Acceptor: Send {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Accepts a connection. The address is `None` if its source has none.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Option<IpAddr>)>> + Send;
}

impl Acceptor for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Option<IpAddr>)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        Ok((stream, Some(peer.ip())))
    }
}

impl Acceptor for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Option<IpAddr>)> {
        let (stream, _) = UnixListener::accept(self).await?;
        Ok((stream, None))
    }
}

/// Serves connections while it is polled.
pub async fn serve<A, S, F>(acceptor: A, bounds: HttpBounds, service: S)
where
    A: Acceptor,
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = HttpResponse> + Send + 'static,
{
    let places = Places::new(bounds.connections);
    loop {
        let permit = places.wait().await;
        let (stream, source) = match acceptor.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "{} connection could not be accepted", bounds.name);
                tokio::time::sleep(bounds.accept_pause).await;
                continue;
            }
        };
        let Some(place) = places.take(permit, source) else {
            continue;
        };
        let service = service.clone();
        tokio::spawn(async move {
            place.hold(answer_in_time(stream, bounds, service)).await;
        });
    }
}

async fn answer_in_time<S, F>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    bounds: HttpBounds,
    service: S,
) where
    S: Fn(Request<Incoming>) -> F,
    F: Future<Output = HttpResponse>,
{
    let answering = answer(stream, bounds.head_timeout, service);
    let answered = match bounds.exchange_timeout {
        None => answering.await,
        Some(limit) => match tokio::time::timeout(limit, answering).await {
            Ok(answered) => answered,
            Err(_) => return tracing::debug!("{} connection took too long", bounds.name),
        },
    };
    if let Err(error) = answered {
        tracing::debug!(%error, "{} connection failed", bounds.name);
    }
}

/// Answers the request of one connection.
///
/// # Errors
/// If it is not HTTP/1.1, its head comes too slowly, or the client leaves.
pub async fn answer<S, F>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    head_timeout: Duration,
    service: S,
) -> hyper::Result<()>
where
    S: Fn(Request<Incoming>) -> F,
    F: Future<Output = HttpResponse>,
{
    let service = service_fn(move |request| {
        let response = service(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .keep_alive(false);
    server.serve_connection(TokioIo::new(stream), service).await
}

/// The places that a server has for connections.
enum Places {
    Unbounded,
    Queued(Arc<Semaphore>),
    Displacing(Seats<UnverifiedSource>),
}

/// A connection's place.
enum Place {
    Unbounded,
    Queued(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit),
    Displacing(Seat<UnverifiedSource>),
}

impl Places {
    fn new(bound: ConnectionBound) -> Self {
        match bound {
            ConnectionBound::Unbounded => Self::Unbounded,
            ConnectionBound::Queued(most) => Self::Queued(Arc::new(Semaphore::new(most))),
            ConnectionBound::Displacing(most) => Self::Displacing(Seats::new(most)),
        }
    }

    /// Waits until a connection may be accepted.
    async fn wait(&self) -> Option<OwnedSemaphorePermit> {
        match self {
            Self::Queued(places) => Arc::clone(places).acquire_owned().await.ok(),
            Self::Unbounded | Self::Displacing(_) => None,
        }
    }

    /// The place of a connection that has been accepted; `None` if there is none for it.
    fn take(&self, permit: Option<OwnedSemaphorePermit>, source: Option<IpAddr>) -> Option<Place> {
        match self {
            Self::Unbounded => Some(Place::Unbounded),
            Self::Queued(_) => permit.map(Place::Queued),
            Self::Displacing(seats) => {
                let seat = seats.take(UnverifiedSource::of(source?)).ok()?;
                Some(Place::Displacing(seat))
            }
        }
    }
}

impl Place {
    /// Runs an exchange, until it ends or loses its place.
    async fn hold(self, exchange: impl Future<Output = ()>) {
        match self {
            Self::Unbounded | Self::Queued(_) => exchange.await,
            Self::Displacing(mut seat) => {
                tokio::select! {
                    () = exchange => {}
                    () = seat.displaced() => {
                        tracing::debug!("a connection was displaced by a newer one");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const BOUNDS: HttpBounds = HttpBounds {
        name: "a test's",
        connections: ConnectionBound::Unbounded,
        head_timeout: Duration::from_millis(300),
        exchange_timeout: None,
        accept_pause: Duration::ZERO,
    };

    async fn connect(bounds: HttpBounds) -> (TcpStream, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(serve(listener, bounds, async |_: Request<Incoming>| {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }));
        (
            TcpStream::connect(address).await.expect("connected"),
            address,
        )
    }

    /// What a server sends after a text, until it closes the connection.
    async fn exchange(stream: &mut TcpStream, text: &str) -> String {
        stream.write_all(text.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        // A reset ends the answer too.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    #[tokio::test]
    async fn a_connection_has_one_request_and_a_slow_head_ends_it() {
        let (mut first, address) = connect(BOUNDS).await;
        let answer = exchange(&mut first, REQUEST).await;
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
        let mut slow = TcpStream::connect(address).await.expect("connected");
        let answer = exchange(&mut slow, "GET / HTTP/1.1\r\n").await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }

    #[tokio::test]
    async fn further_connections_wait_or_displace_the_oldest() {
        for connections in [ConnectionBound::Queued(1), ConnectionBound::Displacing(1)] {
            let bounds = HttpBounds {
                connections,
                head_timeout: Duration::from_secs(1),
                exchange_timeout: Some(Duration::from_secs(1)),
                ..BOUNDS
            };
            let (mut idle, address) = connect(bounds).await;
            let mut next = TcpStream::connect(address).await.expect("connected");
            let start = std::time::Instant::now();
            let answer = exchange(&mut next, REQUEST).await;
            assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
            let waited = start.elapsed() > Duration::from_millis(500);
            assert_eq!(waited, connections == ConnectionBound::Queued(1));
            assert!(!exchange(&mut idle, "").await.starts_with("HTTP/1.1 2"));
        }
    }
}
