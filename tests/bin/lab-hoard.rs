//! Servers and clients that do not take what they are sent, so that it waits on the way.
//!
//! `lab-hoard silent ADDRESS`: a server that reads everything and never answers.
//! `lab-hoard endless ADDRESS`: a server that answers the first bytes of a connection with a body that does not
//! end.
//! `lab-hoard closed ADDRESS`: a server of HTTP/2 whose windows stay 0.
//!
//! `lab-hoard heads ADDRESS COUNT`: opens COUNT connections and sends an HTTP/1 request with a long head on each.
//! `lab-hoard unread ADDRESS COUNT`: the same with a short request, and reads nothing of the answer.
//! `lab-hoard streams ADDRESS COUNT`: opens COUNT connections of HTTP/2, with many requests on each, and sends
//! as much of their bodies as it may.
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
use http::Request;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, stdin};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections that are being opened at the same time.
const OPENING: usize = 64;

/// The limit for one connection to be opened.
const PATIENCE: Duration = Duration::from_secs(20);

/// The length of a long head, in fields and in bytes of each: as much as an agent reads.
const FIELDS: usize = 85;
const FIELD: usize = 640;

/// Requests of one connection of HTTP/2.
const STREAMS: usize = 64;

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
        ["heads", address, count] => hold(address.parse()?, count.parse()?, heads).await,
        ["unread", address, count] => hold(address.parse()?, count.parse()?, unread).await,
        ["streams", address, count] => hold(address.parse()?, count.parse()?, streams).await,
        _ => Err(
            "usage: lab-hoard silent|endless|closed|heads|unread|streams ADDRESS [COUNT]".into(),
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
    let fields = format!("a: {}\r\n", "b".repeat(FIELD)).repeat(FIELDS);
    let head = format!("GET /order HTTP/1.1\r\nhost: orders\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).await?;
    Ok(stream)
}

async fn unread(mut stream: TcpStream) -> Result<TcpStream, Failure> {
    stream
        .write_all(b"GET /order HTTP/1.1\r\nhost: orders\r\n\r\n")
        .await?;
    // The answer has begun, or the connection was refused.
    stream.read_u8().await?;
    Ok(stream)
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
