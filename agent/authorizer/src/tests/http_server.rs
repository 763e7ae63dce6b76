//! HTTP authorizers whose behaviour tests control.

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
use tokio::net::{TcpListener, TcpStream};

/// The server, and what it has received.
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
    /// A server that always sends this response.
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

    /// The last request that arrived.
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

/// What a [`raw`] server does after sending its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    /// Closes the connection.
    Close,
    /// Sends nothing more.
    Stall,
}

/// A server that reads something, and then sends these bytes as they are.
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

/// A server that answers by the path: 200 for `/allow`, the status that a path names, and 403
/// otherwise. Like servers based on Python's `http.server`, it sends a body whatever the method and
/// status, and does not read the bodies of requests. It sends the surplus bytes once the client has
/// sent more, or after a moment.
pub(super) async fn careless() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("an address");
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(answer_carelessly(stream));
        }
    });
    (address, connections)
}

/// Every body. Read as a response, it allows a request.
const ALLOWING_BODY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

async fn answer_carelessly(mut stream: TcpStream) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let is_left_over = !buffer.is_empty();
        if is_left_over {
            more_or_a_moment(&mut stream, &mut buffer).await?;
        }
        let end = loop {
            match buffer.windows(4).position(|part| part == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None if stream.read_buf(&mut buffer).await.ok()? == 0 => return None,
                None => {}
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end);
        let mut words = head.split(' ');
        let (method, path) = (words.next()?, words.next()?);
        let status = match path.trim_start_matches('/') {
            "allow" => 200,
            path => path.parse().unwrap_or(403),
        };
        let length = ALLOWING_BODY.len();
        let answer = format!(
            "HTTP/1.1 {status} x\r\nconnection: keep-alive\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.ok()?;
        if method == "HEAD" || [204, 304].contains(&status) {
            more_or_a_moment(&mut stream, &mut buffer).await?;
        }
        stream.write_all(ALLOWING_BODY.as_bytes()).await.ok()?;
    }
}

async fn more_or_a_moment(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let more = stream.read_buf(buffer);
    match tokio::time::timeout(std::time::Duration::from_millis(300), more).await {
        Ok(Ok(0) | Err(_)) => None,
        Ok(Ok(_)) | Err(_) => Some(()),
    }
}

/// A server that answers 200, and closes the connection if a request's head is longer than `most`
/// bytes.
pub(super) async fn narrow(most: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && head.len() <= most {
                    if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                if head.len() <= most {
                    let _ = stream.write_all(ALLOWING_BODY.as_bytes()).await;
                }
            });
        }
    });
    address
}

/// A server that denies, and sends a second, unsolicited response some time after each one.
pub(super) async fn chatty() -> (SocketAddr, Arc<AtomicUsize>) {
    const DENYING: &str = "HTTP/1.1 403 x\r\ncontent-length: 0\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("an address");
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                while let Ok(1..) = stream.read(&mut [0; 4096]).await {
                    let _ = stream.write_all(DENYING.as_bytes()).await;
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    let _ = stream.write_all(ALLOWING_BODY.as_bytes()).await;
                }
            });
        }
    });
    (address, connections)
}
