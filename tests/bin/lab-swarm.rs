//! `lab-swarm serve ADDRESS`: sends back what it gets.
//! `lab-swarm hold ADDRESS COUNT`: opens COUNT connections, prints how many were answered and how many
//! refused, and holds them until its standard input ends.
//! `lab-swarm churn ADDRESS SECONDS`: opens a connection, gets an answer and closes it, over and over.
//! `lab-swarm watch ADDRESS SECONDS`: the same, one after another; prints the longest time without an
//! answer, in milliseconds, and the median duration of a call, in microseconds.
//! `lab-swarm knock ADDRESS SECONDS`: opens a connection, sends 1 KiB and closes it, over and over.
//! `lab-swarm chatter ADDRESS SECONDS`: sends a byte and gets it back, over and over, on many
//! connections.
//! `lab-swarm heads ADDRESS SECONDS`: sends one HTTP/1 request with a long head after another, on
//! several connections.

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, stdin};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

/// Connections that are being opened at the same time.
const OPENING: usize = 256;

/// Connections that are opened and closed at the same time.
const LANES: usize = 16;

/// Between two calls of one that watches.
const BETWEEN: Duration = Duration::from_millis(1);

/// Connections of one that chatters.
const CHATTERING: usize = 256;

/// Connections of one that sends long heads.
const HEADS: usize = 32;

/// Header fields of a long head, and the length of each: near what an agent reads.
const FIELDS: usize = 90;
const FIELD: usize = 640;

/// The limit for the answer to one connection.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", address] => serve(address.parse()?).await?,
        ["hold", address, count] => hold(address.parse()?, count.parse()?).await?,
        ["churn", address, seconds] => {
            churn(address.parse()?, Duration::from_secs(seconds.parse()?)).await?;
        }
        ["watch", address, seconds] => {
            watch(address.parse()?, Duration::from_secs(seconds.parse()?)).await?;
        }
        ["knock", address, seconds] => {
            knock(address.parse()?, Duration::from_secs(seconds.parse()?));
        }
        ["chatter", address, seconds] => {
            let time = Duration::from_secs(seconds.parse()?);
            repeat(CHATTERING, address.parse()?, time, chatter).await?;
        }
        ["heads", address, seconds] => {
            let time = Duration::from_secs(seconds.parse()?);
            repeat(HEADS, address.parse()?, time, heads).await?;
        }
        _ => {
            return Err(
                "usage: lab-swarm serve|hold|churn|watch|knock|chatter|heads ADDRESS \
                 [COUNT|SECONDS]"
                    .into(),
            );
        }
    }
    Ok(())
}

async fn serve(address: SocketAddr) -> io::Result<()> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener: TcpListener = socket.listen(16_384)?;
    println!("listening");
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let (mut read, mut write) = stream.split();
            // How a connection ends does not matter here.
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
    }
}

async fn hold(address: SocketAddr, count: usize) -> Result<(), Box<dyn Error>> {
    let opening = Arc::new(Semaphore::new(OPENING));
    let mut calls = JoinSet::new();
    for _ in 0..count {
        let turn = Arc::clone(&opening).acquire_owned().await?;
        calls.spawn(async move {
            let answered = call(address).await;
            drop(turn);
            answered
        });
    }
    let mut held = Vec::new();
    while let Some(call) = calls.join_next().await {
        held.extend(call?.ok());
    }
    say(held.len(), count - held.len());
    stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}

async fn churn(address: SocketAddr, time: Duration) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let mut lanes = JoinSet::new();
    for _ in 0..LANES {
        lanes.spawn(async move {
            let (mut answered, mut refused) = (0, 0);
            while start.elapsed() < time {
                match call(address).await {
                    Ok(_) => answered += 1,
                    Err(_) => refused += 1,
                }
            }
            (answered, refused)
        });
    }
    let (mut answered, mut refused) = (0, 0);
    while let Some(lane) = lanes.join_next().await {
        let (more, less) = lane?;
        answered += more;
        refused += less;
    }
    say(answered, refused);
    Ok(())
}

async fn watch(address: SocketAddr, time: Duration) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let (mut last, mut longest) = (start, Duration::ZERO);
    let mut took = Vec::new();
    while start.elapsed() < time {
        let began = Instant::now();
        if call(address).await.is_ok() {
            took.push(began.elapsed());
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        tokio::time::sleep(BETWEEN).await;
    }
    longest = longest.max(last.elapsed());
    took.sort_unstable();
    let median = took.get(took.len() / 2).map(|took| took.as_micros() as u64);
    println!(
        "{}",
        json!({
            "longest_silence_ms": longest.as_millis() as u64,
            "median_us": median,
            "answered": took.len(),
        })
    );
    Ok(())
}

/// On one thread, without waiting for anything but the connection.
fn knock(address: SocketAddr, time: Duration) {
    let start = Instant::now();
    let (mut sent, mut refused) = (0, 0);
    while start.elapsed() < time {
        let knocked = std::net::TcpStream::connect_timeout(&address, PATIENCE)
            .and_then(|mut stream| stream.write_all(&[b'?'; 1024]));
        match knocked {
            Ok(()) => sent += 1,
            Err(_) => refused += 1,
        }
    }
    say(sent, refused);
}

/// Runs `once` repeatedly on this many lanes, each with a connection that is reopened after a failure.
async fn repeat(
    lanes: usize,
    address: SocketAddr,
    time: Duration,
    once: impl AsyncFn(&mut TcpStream) -> io::Result<()> + Copy + 'static,
) -> Result<(), Box<dyn Error>> {
    let outcomes = LocalSet::new()
        .run_until(async {
            let mut running = JoinSet::new();
            for _ in 0..lanes {
                running.spawn_local(lane(address, time, once));
            }
            running.join_all().await
        })
        .await;
    let (done, failed) = outcomes
        .into_iter()
        .fold((0, 0), |(done, failed), (more, worse)| {
            (done + more, failed + worse)
        });
    say(done, failed);
    Ok(())
}

/// One lane: how often it did it, and how often it failed.
async fn lane(
    address: SocketAddr,
    time: Duration,
    once: impl AsyncFn(&mut TcpStream) -> io::Result<()>,
) -> (usize, usize) {
    let start = Instant::now();
    let (mut done, mut failed) = (0, 0);
    while start.elapsed() < time {
        let Ok(mut stream) = TcpStream::connect(address).await else {
            failed += 1;
            continue;
        };
        while start.elapsed() < time {
            match tokio::time::timeout(PATIENCE, once(&mut stream)).await {
                Ok(Ok(())) => done += 1,
                Ok(Err(_)) | Err(_) => {
                    failed += 1;
                    break;
                }
            }
        }
    }
    (done, failed)
}

async fn chatter(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"?").await?;
    stream.read_u8().await?;
    Ok(())
}

/// The answer is read until its first bytes have come; another request is sent then.
async fn heads(stream: &mut TcpStream) -> io::Result<()> {
    let fields = format!("a: {}\r\n", "b".repeat(FIELD)).repeat(FIELDS);
    let head = format!("GET /other HTTP/1.1\r\nhost: orders\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).await?;
    let read = stream.read(&mut [0; 4096]).await?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

fn say(answered: usize, refused: usize) {
    println!("{}", json!({"answered": answered, "refused": refused}));
}

/// Connects and gets an answer.
async fn call(address: SocketAddr) -> io::Result<TcpStream> {
    let answered = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"?").await?;
        stream.read_u8().await?;
        Ok(stream)
    };
    tokio::time::timeout(PATIENCE, answered)
        .await
        .unwrap_or_else(|late| Err(late.into()))
}
