//! An HTTP authorizer that says what a test wants.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ::http::{Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// The server, and what came to it.
pub(super) struct HttpServer {
    pub(super) address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<Request<Bytes>>>,
}

impl HttpServer {
    /// A server that always answers this.
    pub(super) async fn answering(response: Response<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Seen::default());
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                log.connections.fetch_add(1, Ordering::Relaxed);
                let (log, response) = (Arc::clone(&log), response.clone());
                let service =
                    service_fn(move |request| answer(Arc::clone(&log), request, response.clone()));
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { address, seen }
    }

    pub(super) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }

    /// The last request.
    pub(super) fn request(&self) -> Request<Bytes> {
        let mut requests = self.seen.requests.lock().expect("no panic");
        requests.pop().expect("a request")
    }
}

async fn answer(
    seen: Arc<Seen>,
    request: Request<Incoming>,
    response: Response<&'static str>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let request = Request::from_parts(head, body);
    seen.requests.lock().expect("no panic").push(request);
    Ok(response.map(|body| Full::new(Bytes::from_static(body.as_bytes()))))
}

/// What a [`raw`] server does once it has sent its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    /// Closes the connection.
    Close,
    /// Sends nothing more.
    Stall,
}

/// A server that reads something, and then sends these bytes, whatever they are.
pub(super) async fn raw(bytes: &'static [u8], then: Then) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(bytes).await;
                match then {
                    Then::Close => {}
                    Then::Stall => std::future::pending().await,
                }
            });
        }
    });
    address
}
