//! `lab-swarm serve ADDRESS`: sends back what it gets.
//! `lab-swarm hold ADDRESS COUNT`: opens so many connections, says how many were answered and how
//! many refused, and holds them until its standard input ends.
//! `lab-swarm churn ADDRESS SECONDS`: opens a connection, gets an answer and closes it, over and over.
//! `lab-swarm watch ADDRESS SECONDS`: the same, one after another; says how long, at most, it had no
//! answer, in milliseconds.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, stdin};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections that are being opened at the same time.
const OPENING: usize = 256;

/// Connections that are opened and closed at the same time.
const LANES: usize = 16;

/// Between two calls of one that watches.
const BETWEEN: Duration = Duration::from_millis(1);

/// For one connection to be answered.
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
        _ => return Err("usage: lab-swarm serve|hold|churn|watch ADDRESS [COUNT|SECONDS]".into()),
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
            // How a connection ends is its caller's affair.
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
    while start.elapsed() < time {
        if call(address).await.is_ok() {
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        tokio::time::sleep(BETWEEN).await;
    }
    longest = longest.max(last.elapsed());
    println!(
        "{}",
        json!({"longest_silence_ms": longest.as_millis() as u64})
    );
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
