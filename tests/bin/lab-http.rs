//! `lab-http JSON`: sends the given bytes over one connection, and prints as JSON which HTTP/1 answers
//! came back and how the connection ended. Its argument is an `ambit_tests::RawCall`.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

/// The limit for the connection, and for each read.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let told = std::env::args().nth(1).ok_or("usage: lab-http JSON")?;
    let told: Value = serde_json::from_str(&told)?;
    let to: SocketAddr = told["to"].as_str().ok_or("no address")?.parse()?;
    let sent: Vec<u8> = told["send"]
        .as_str()
        .ok_or("nothing to send")?
        .chars()
        .map(|octet| u8::try_from(u32::from(octet)))
        .collect::<Result<_, _>>()?;
    let call = Call {
        to,
        sent,
        awaited: told["answers"].as_u64(),
        after: match told["shutdown"] == true {
            true => AfterSending::EndOurSide,
            false => AfterSending::KeepOpen,
        },
    };
    println!("{}", make(&call));
    Ok(())
}

struct Call {
    to: SocketAddr,
    sent: Vec<u8>,
    /// How many answers; `None`: all, up to the end.
    awaited: Option<u64>,
    after: AfterSending,
}

#[derive(PartialEq, Eq)]
enum AfterSending {
    KeepOpen,
    EndOurSide,
}

fn make(call: &Call) -> Value {
    let mut stream = match TcpStream::connect_timeout(&call.to, PATIENCE) {
        Ok(stream) => stream,
        Err(error) => return json!({"answers": [], "end": ended(error.kind())}),
    };
    // The other side may have refused it before all of it was sent; its answer counts.
    let _ = stream.write_all(&call.sent);
    if call.after == AfterSending::EndOurSide {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    let end = loop {
        let (answers, rest) = parse(&received, false);
        let is_enough = call
            .awaited
            .is_some_and(|count| answers.len() as u64 >= count);
        if is_enough && rest.is_empty() {
            break "open";
        }
        match stream.read(&mut buffer) {
            Ok(0) => break "closed",
            Ok(length) => received.extend_from_slice(&buffer[..length]),
            Err(error) => break ended(error.kind()),
        }
    };
    let (answers, rest) = parse(&received, true);
    json!({"answers": answers, "end": end, "rest": text(rest)})
}

fn ended(error: ErrorKind) -> &'static str {
    match error {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "reset",
        ErrorKind::ConnectionRefused => "refused",
        _ => "silent",
    }
}

/// The answers in the bytes, and the bytes after them. `has_ended`: no more will come.
fn parse(mut bytes: &[u8], has_ended: bool) -> (Vec<Value>, &[u8]) {
    let mut answers = Vec::new();
    while let Some((answer, rest)) = answer(bytes, has_ended) {
        answers.push(answer);
        bytes = rest;
    }
    (answers, bytes)
}

fn answer(bytes: &[u8], has_ended: bool) -> Option<(Value, &[u8])> {
    let end = position(bytes, b"\r\n\r\n")?;
    let (head, rest) = (text(&bytes[..end]), &bytes[end + 4..]);
    let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
    let field = |name: &str| {
        head.lines().skip(1).find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let (body, rest) = match (field("content-length"), field("transfer-encoding")) {
        _ if status < 200 || status == 204 => (Vec::new(), rest),
        (Some(length), _) => {
            let length: usize = length.parse().ok()?;
            match rest.len() {
                // The answer to a HEAD has a length and no body.
                0 if has_ended => (Vec::new(), rest),
                have if have < length => return None,
                _ => (rest[..length].to_vec(), &rest[length..]),
            }
        }
        (None, Some(_)) => chunked(rest)?,
        (None, None) if has_ended => (rest.to_vec(), &[][..]),
        (None, None) => return None,
    };
    let answer = json!({"status": status, "head": head, "body": text(&body)});
    Some((answer, rest))
}

fn chunked(mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let line = position(bytes, b"\r\n")?;
        let size = usize::from_str_radix(&text(&bytes[..line]), 16).ok()?;
        bytes = &bytes[line + 2..];
        let chunk = bytes.get(..size)?;
        let rest = bytes.get(size + 2..)?;
        if size == 0 {
            return Some((body, rest));
        }
        body.extend_from_slice(chunk);
        bytes = rest;
    }
}

fn position(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// Each octet as the character with its code.
fn text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}
