//! Servers and clients that do not take what they are sent, so that it waits on the way.
//!
//! `lab-hoard silent ADDRESS`: a server that reads everything and never answers.
//! `lab-hoard endless ADDRESS`: a server that answers the first bytes of a connection with a body that does not
//! end.
//! `lab-hoard closed ADDRESS`: a server of HTTP/2 whose windows stay 0.
//! `lab-hoard prompt ADDRESS`: a server of HTTP/1 and HTTP/2 that answers every request at once.
//!
//! `lab-hoard heads ADDRESS COUNT`: opens COUNT connections and sends an HTTP/1 request with a long head on each.
//! `lab-hoard parts ADDRESS COUNT`: the same, but the end of the head does not come.
//! `lab-hoard unread ADDRESS COUNT`: opens COUNT connections with a short request, and reads nothing of the answer.
//! `lab-hoard streams ADDRESS COUNT`: opens COUNT connections of HTTP/2, with many requests on each, and sends
//! as much of their bodies as it may.
//!
//! `lab-hoard idle ADDRESS COUNT`: opens COUNT connections, and gets one answer on each.
//! `lab-hoard idle-2 ADDRESS COUNT`: the same with HTTP/2.
//! `lab-hoard waiting ADDRESS COUNT`: opens COUNT connections with a short request on each, and waits for no answer.
//! `lab-hoard waiting-2 ADDRESS COUNT`: the same with HTTP/2.
//!
//! A client prints how many of its connections were opened and how many refused, and holds them until its
//! standard input ends.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use h2::client::SendRequest;
use http::{Request, Response};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, stdin};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections that are being opened at the same time.
const OPENING: usize = 64;

/// The limit for one connection to be opened.
const PATIENCE: Duration = Duration::from_secs(20);

/// The length of a long head, in fields and in bytes of each: as much as an agent reads.
const FIELDS: usize = 85;
const FIELD: usize = 640;

/// Requests of one connection of HTTP/2.
const STREAMS: usize = 64;

/// A short request.
const SHORT: &[u8] = b"GET /order HTTP/1.1\r\nhost: orders\r\n\r\n";

/// What is sent at a time.
static PIECE: [u8; 16 << 10] = [b'x'; 16 << 10];

/// A client's receive buffer: small, so that what it does not read waits elsewhere.
const RECEIVE_BUFFER: u32 = 4096;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["silent", address] => serve(address.parse()?, silent).await,
        ["endless", address] => serve(address.parse()?, endless).await,
        ["closed", address] => serve(address.parse()?, closed).await,
        ["prompt", address] => serve(address.parse()?, prompt).await,
        ["idle", address, count] => hold(address.parse()?, count.parse()?, idle).await,
        ["idle-2", address, count] => hold(address.parse()?, count.parse()?, idle_2).await,
        ["waiting", address, count] => hold(address.parse()?, count.parse()?, waiting).await,
        ["waiting-2", address, count] => hold(address.parse()?, count.parse()?, waiting_2).await,
        ["heads", address, count] => hold(address.parse()?, count.parse()?, heads).await,
        ["parts", address, count] => hold(address.parse()?, count.parse()?, parts).await,
        ["unread", address, count] => hold(address.parse()?, count.parse()?, unread).await,
        ["streams", address, count] => hold(address.parse()?, count.parse()?, streams).await,
        _ => Err(
            "usage: lab-hoard silent|endless|closed|prompt|idle|idle-2|waiting|waiting-2|heads|parts|unread|streams \
             ADDRESS [COUNT]"
                .into(),
        ),
    }
}

async fn serve<F>(address: SocketAddr, each: fn(TcpStream) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener: TcpListener = socket.listen(16_384)?;
    println!("listening");
    loop {
        let (stream, _) = listener.accept().await?;
        // How a connection ends does not matter here.
        tokio::spawn(each(stream));
    }
}

async fn silent(mut stream: TcpStream) -> Result<(), Failure> {
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(())
}

async fn endless(mut stream: TcpStream) -> Result<(), Failure> {
    stream.read_u8().await?;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", u32::MAX);
    stream.write_all(head.as_bytes()).await?;
    loop {
        stream.write_all(&PIECE).await?;
    }
}

async fn closed(stream: TcpStream) -> Result<(), Failure> {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(0);
    let mut connection = builder.handshake::<_, Bytes>(stream).await?;
    let mut requests = Vec::new();
    while let Some(request) = connection.accept().await {
        requests.push(request?);
    }
    Ok(())
}

async fn prompt(mut stream: TcpStream) -> Result<(), Failure> {
    let mut first = [0; 3];
    while stream.peek(&mut first).await? < first.len() {
        sleep(Duration::from_millis(1)).await;
    }
    if &first == b"PRI" {
        return prompt_2(stream).await;
    }
    let mut head = Vec::new();
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await?;
        }
    }
}

async fn prompt_2(stream: TcpStream) -> Result<(), Failure> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (_, mut respond) = request?;
        let _: SendStream<Bytes> = respond.send_response(Response::new(()), true)?;
    }
    Ok(())
}

/// Opens connections by `open`, and holds what it makes of them.
async fn hold<T, F>(
    address: SocketAddr,
    count: usize,
    open: fn(TcpStream) -> F,
) -> Result<(), Failure>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let opening = Arc::new(Semaphore::new(OPENING));
    let mut calls = JoinSet::new();
    for _ in 0..count {
        let turn = Arc::clone(&opening).acquire_owned().await?;
        calls.spawn(async move {
            let opened = timeout(PATIENCE, async { open(connect(address).await?).await }).await;
            drop(turn);
            opened.ok()?.ok()
        });
    }
    let mut held = Vec::new();
    while let Some(call) = calls.join_next().await {
        held.extend(call?);
    }
    println!(
        "{}",
        json!({"answered": held.len(), "refused": count - held.len()})
    );
    stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.connect(address).await
}

async fn heads(mut stream: TcpStream) -> Result<TcpStream, Failure> {
    stream.write_all(long_head().as_bytes()).await?;
    stream.write_all(b"\r\n").await?;
    Ok(stream)
}

async fn parts(mut stream: TcpStream) -> Result<TcpStream, Failure> {
    stream.write_all(long_head().as_bytes()).await?;
    Ok(stream)
}

/// A long head without its end.
fn long_head() -> String {
    let fields = format!("a: {}\r\n", "b".repeat(FIELD)).repeat(FIELDS);
    format!("GET /order HTTP/1.1\r\nhost: orders\r\n{fields}")
}

async fn unread(mut stream: TcpStream) -> Result<TcpStream, Failure> {
    stream.write_all(SHORT).await?;
    // The answer has begun, or the connection was refused.
    stream.read_u8().await?;
    Ok(stream)
}

async fn idle(mut stream: TcpStream) -> Result<TcpStream, Failure> {
    stream.write_all(SHORT).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err("no answer".into());
        }
    }
    Ok(stream)
}

async fn waiting(mut stream: TcpStream) -> Result<TcpStream, Failure> {
    stream.write_all(SHORT).await?;
    Ok(stream)
}

/// A connection of HTTP/2 that goes on.
type Connection2 = (JoinSet<Result<(), Failure>>, SendRequest<Bytes>);

async fn idle_2(stream: TcpStream) -> Result<Connection2, Failure> {
    let (held, mut client) = connect_2(stream).await?;
    client = client.ready().await?;
    let answer = client.send_request(short_2()?, true)?.0.await?;
    drop(answer);
    Ok((held, client))
}

async fn waiting_2(stream: TcpStream) -> Result<Connection2, Failure> {
    let (mut held, mut client) = connect_2(stream).await?;
    client = client.ready().await?;
    let answer = client.send_request(short_2()?, true)?.0;
    held.spawn(async {
        answer.await?;
        Ok(())
    });
    Ok((held, client))
}

async fn connect_2(stream: TcpStream) -> Result<Connection2, Failure> {
    let (client, connection) = h2::client::handshake(stream).await?;
    let mut held = JoinSet::new();
    held.spawn(async move { Ok(connection.await?) });
    Ok((held, client))
}

fn short_2() -> Result<Request<()>, Failure> {
    Ok(Request::get("http://orders/order").body(())?)
}

async fn streams(stream: TcpStream) -> Result<JoinSet<Result<(), Failure>>, Failure> {
    let (mut client, connection) = h2::client::handshake(stream).await?;
    let mut sending = JoinSet::new();
    sending.spawn(async move { Ok(connection.await?) });
    for _ in 0..STREAMS {
        client = client.ready().await?;
        let request = Request::post("http://orders/order").body(())?;
        let (_, body) = client.send_request(request, false)?;
        sending.spawn(pour(body));
    }
    Ok(sending)
}

/// Sends as much as it may.
async fn pour(mut body: SendStream<Bytes>) -> Result<(), Failure> {
    loop {
        body.reserve_capacity(PIECE.len());
        let capacity = std::future::poll_fn(|context| body.poll_capacity(context)).await;
        let length = capacity.ok_or("the stream has ended")??;
        body.send_data(Bytes::from_static(&PIECE[..length.min(PIECE.len())]), false)?;
    }
}
