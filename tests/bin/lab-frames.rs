//! `lab-frames JSON`: sends bytes over a connection, right or wrong, and prints as JSON how the streams of
//! HTTP/2 ended. Its argument is an `ambit_tests::FramesCall`.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

/// The limit for each read.
const PATIENCE: Duration = Duration::from_secs(10);

/// RFC 9113, sections 4.1 and 6.
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let told = std::env::args().nth(1).ok_or("usage: lab-frames JSON")?;
    let told: Value = serde_json::from_str(&told)?;
    let to: SocketAddr = told["to"].as_str().ok_or("no address")?.parse()?;
    let sent = told["bytes"].as_str().ok_or("no bytes")?;
    let sent: Result<Vec<u8>, _> = sent.chars().map(u8::try_from).collect();
    let awaited = told["streams"].as_u64().ok_or("no number of streams")?;
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&sent?)?;
    let mut ends = BTreeMap::new();
    while (ends.len() as u64) < awaited {
        match frame(&mut stream) {
            Ok((HEADERS, of, _)) => ends.insert(of, "answered".to_owned()),
            Ok((RST_STREAM, of, payload)) => ends.insert(of, format!("reset: {payload:?}")),
            Ok((GOAWAY, ..)) => ends.insert(0, "connection ended".to_owned()),
            Ok(_) => continue,
            Err(error) => {
                ends.insert(0, error.to_string());
                break;
            }
        };
    }
    println!("{}", json!(ends));
    Ok(())
}

/// Reads a frame, and returns its kind, stream and payload.
fn frame(stream: &mut TcpStream) -> std::io::Result<(u8, u32, Vec<u8>)> {
    let mut head = [0; FRAME_HEAD];
    stream.read_exact(&mut head)?;
    let [a, b, c, kind, _, of @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload)?;
    Ok((kind, u32::from_be_bytes(of), payload))
}
