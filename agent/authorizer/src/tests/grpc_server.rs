//! A gRPC authorizer whose behaviour tests control, with HTTP/2 frames of its own making.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ::http::{HeaderMap, HeaderValue, Request, Response};
use bytes::{BufMut, Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::envoy::{CheckRequest, CheckResponse};

/// What the server does with a check.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// Answers with this message.
    Message(Box<CheckResponse>),
    /// Answers with these bytes as the message.
    Bytes(&'static [u8]),
    /// Fails the call with this code.
    Code(u16),
    /// Answers like a plain web server, with this status.
    Status(u16),
    /// Answers with this status, these bytes as the whole body, and these trailers.
    Raw(
        u16,
        Vec<u8>,
        Option<&'static [(&'static str, &'static str)]>,
    ),
    /// Never answers.
    Silence,
    /// Closes the connection.
    HangUp,
}

/// The server, and what it has received.
pub(super) struct GrpcServer {
    pub(super) address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    checks: Mutex<Vec<(Request<()>, CheckRequest)>>,
    replies: Mutex<Vec<Reply>>,
}

impl GrpcServer {
    /// A server that always does the same.
    pub(super) async fn replying(reply: Reply) -> Self {
        Self::with(vec![reply]).await
    }

    /// A server that answers with this message.
    pub(super) async fn answering(response: CheckResponse) -> Self {
        Self::replying(Reply::Message(Box::new(response))).await
    }

    /// A server that does these one after another, and then repeats the last.
    pub(super) async fn with(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Seen::default());
        *seen.replies.lock().expect("no panic") = replies;
        tokio::spawn(accept(listener, Arc::clone(&seen)));
        Self { address, seen }
    }

    pub(super) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }

    /// The last check that arrived.
    pub(super) fn check(&self) -> (Request<()>, CheckRequest) {
        let mut checks = self.seen.checks.lock().expect("no panic");
        checks.pop().expect("a check")
    }
}

async fn accept(listener: TcpListener, seen: Arc<Seen>) {
    while let Ok((stream, _)) = listener.accept().await {
        seen.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(serve(stream, Arc::clone(&seen)));
    }
}

async fn serve(stream: TcpStream, seen: Arc<Seen>) {
    // A client that goes away is not a failure of the server.
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    let hang_up = Arc::new(Notify::new());
    loop {
        tokio::select! {
            () = hang_up.notified() => return,
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let (seen, hang_up) = (Arc::clone(&seen), Arc::clone(&hang_up));
                    tokio::spawn(handle(request, respond, seen, hang_up));
                }
                Some(Err(_)) | None => return,
            },
        }
    }
}

async fn handle(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    seen: Arc<Seen>,
    hang_up: Arc<Notify>,
) {
    let (head, body) = request.into_parts();
    let check = (Request::from_parts(head, ()), read(body).await);
    seen.checks.lock().expect("no panic").push(check);
    match seen.next() {
        Reply::HangUp => hang_up.notify_one(),
        Reply::Silence => {
            let _held = respond;
            std::future::pending().await
        }
        reply => send(respond, reply),
    }
}

impl Seen {
    fn next(&self) -> Reply {
        let mut replies = self.replies.lock().expect("no panic");
        match replies.as_slice() {
            [only] => only.clone(),
            _ => replies.remove(0),
        }
    }
}

async fn read(mut body: RecvStream) -> CheckRequest {
    let mut frame = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.expect("data");
        let _ = body.flow_control().release_capacity(data.len());
        frame.extend_from_slice(&data);
    }
    CheckRequest::decode(&frame[5..]).expect("a CheckRequest")
}

fn send(mut respond: SendResponse<Bytes>, reply: Reply) {
    let mut head = Response::new(());
    let grpc = HeaderValue::from_static("application/grpc");
    head.headers_mut().insert("content-type", grpc);
    let message = match reply {
        Reply::Message(message) => message.encode_to_vec(),
        Reply::Bytes(bytes) => bytes.to_vec(),
        Reply::Code(code) => {
            head.headers_mut().insert("grpc-status", code.into());
            let _ = respond.send_response(head, true);
            return;
        }
        Reply::Status(status) => {
            *head.status_mut() = status.try_into().expect("a status");
            head.headers_mut().clear();
            let _ = respond.send_response(head, true);
            return;
        }
        Reply::Raw(status, body, trailers) => {
            *head.status_mut() = status.try_into().expect("a status");
            return send_raw(respond, head, body, trailers);
        }
        Reply::Silence | Reply::HangUp => return,
    };
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len().try_into().expect("short"));
    frame.extend_from_slice(&message);
    let mut body = respond.send_response(head, false).expect("a response");
    body.send_data(frame.freeze(), false).expect("data");
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", 0.into());
    body.send_trailers(trailers).expect("trailers");
}

fn send_raw(
    mut respond: SendResponse<Bytes>,
    head: Response<()>,
    body: Vec<u8>,
    trailers: Option<&[(&'static str, &'static str)]>,
) {
    let mut stream = respond.send_response(head, false).expect("a response");
    let is_last = trailers.is_none();
    stream.send_data(body.into(), is_last).expect("data");
    if let Some(lines) = trailers {
        let mut trailers = HeaderMap::new();
        for (name, value) in lines {
            trailers.append(*name, HeaderValue::from_static(value));
        }
        stream.send_trailers(trailers).expect("trailers");
    }
}
