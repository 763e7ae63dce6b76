//! `lab-pulse kept|new ADDRESS PATH LANES COUNT`: on each of several lanes makes HTTP/1 requests one after another, over
//! one connection or over a new one each. Prints as JSON how long each waited for its answer, in microseconds, lane by
//! lane.

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

/// Between two requests.
const PAUSE: Duration = Duration::from_millis(20);

/// The limit for each answer.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [connections, to, path, lanes, count] = words.as_slice() else {
        return Err("usage: lab-pulse kept|new ADDRESS PATH LANES COUNT".into());
    };
    let connections = match connections.as_str() {
        "kept" => Connections::Kept,
        "new" => Connections::New,
        _ => return Err("kept or new?".into()),
    };
    let (to, lanes, count): (SocketAddr, usize, usize) =
        (to.parse()?, lanes.parse()?, count.parse()?);
    let waited = thread::scope(|scope| {
        let start = |_| scope.spawn(move || run(connections, to, path, count));
        let running: Vec<_> = (0..lanes).map(start).collect();
        let ended = running.into_iter().map(|lane| {
            lane.join()
                .map_err(|_| io::Error::other("a lane panicked"))?
        });
        ended.collect::<io::Result<Vec<_>>>()
    })?;
    println!("{}", json!({"waited_us": waited}));
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Connections {
    Kept,
    New,
}

fn run(connections: Connections, to: SocketAddr, path: &str, count: usize) -> io::Result<Vec<u64>> {
    let mut kept = match connections {
        Connections::Kept => Some(connect(to)?),
        Connections::New => None,
    };
    let mut waited = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        match &mut kept {
            Some(stream) => ask(stream, path)?,
            None => ask(&mut connect(to)?, path)?,
        }
        waited.push(began.elapsed().as_micros() as u64);
        thread::sleep(PAUSE);
    }
    Ok(waited)
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream, path: &str) -> io::Result<()> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: source\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if is_whole(&answer)? {
            return Ok(());
        }
        match stream.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            length => answer.extend_from_slice(&buffer[..length]),
        }
    }
}

/// Whether an answer with a length has come to its end.
fn is_whole(answer: &[u8]) -> io::Result<bool> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(false);
    };
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let length: Option<usize> = length.and_then(|length| length.trim().parse().ok());
    let length = length.ok_or(ErrorKind::InvalidData)?;
    Ok(answer.len() >= end + 4 + length)
}
