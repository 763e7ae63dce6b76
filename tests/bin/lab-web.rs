//! `lab-web ADDRESS...`: an HTTP/1 server that prints as JSON what it sees, to the byte: each
//! connection, each request's head, the length and SHA-256 of its body, and how it ended.
//!
//! `/ws` changes to a protocol that echoes everything, if asked by Upgrade; `/slow` answers without an
//! end; `/wait` answers when the client has ended its side; `/old` answers in old forms of HTTP; `/broken`
//! answers in part and closes; all other requests are answered with what was seen.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::json;

/// Between two lines of `/slow`.
const PAUSE: Duration = Duration::from_millis(20);

/// LF, a folded line, a parameter in Connection, and padded sizes.
const OLD: &[u8] = b"HTTP/1.1 200 OK\nX-Old: a\n b\nConnection: keep-alive; timeout=5\n\
                     Transfer-Encoding: chunked\n\n2  \r\nok\r\n0 \r\n\r\n";

/// An answer that is not whole, with names as some programs expect them.
const BROKEN: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\npart";

static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

fn main() -> Result<(), Box<dyn Error>> {
    let listeners = std::env::args()
        .skip(1)
        .map(|address| Ok(TcpListener::bind(address.parse::<SocketAddr>()?)?))
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    println!("listening");
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| thread::spawn(move || accept(&listener)))
        .collect();
    for thread in accepting {
        thread.join().map_err(|_| "a thread panicked")??;
    }
    Ok(())
}

fn accept(listener: &TcpListener) -> io::Result<()> {
    loop {
        let (stream, peer) = listener.accept()?;
        let number = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        println!(
            "{}",
            json!({"connection": number, "peer": peer.to_string()})
        );
        thread::spawn(move || {
            let mut connection = Connection {
                number,
                stream,
                read: Vec::new(),
            };
            let end = match connection.serve() {
                Ok(()) => "closed".to_owned(),
                Err(error) => format!("{:?}", error.kind()),
            };
            let left = text(&connection.read);
            println!(
                "{}",
                json!({"connection": number, "ended": end, "left": left})
            );
        });
    }
}

struct Connection {
    number: u64,
    stream: TcpStream,
    /// Bytes that have arrived and are not used yet.
    read: Vec<u8>,
}

impl Connection {
    /// Answers one request after the other.
    fn serve(&mut self) -> io::Result<()> {
        while let Some(head) = self.head()? {
            println!("{}", json!({"connection": self.number, "head": head}));
            let target = head.split(' ').nth(1).unwrap_or_default();
            match target.split('?').next().unwrap_or_default() {
                "/ws" if field(&head, "upgrade").is_some() => return self.change_protocol(),
                "/slow" => return self.answer_slowly(),
                "/old" => self.stream.write_all(OLD)?,
                "/broken" => return self.stream.write_all(BROKEN),
                "/wait" => return self.answer_at_the_end(),
                _ => self.answer(&head)?,
            }
        }
        Ok(())
    }

    fn answer(&mut self, head: &str) -> io::Result<()> {
        if field(head, "expect").is_some() {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let whole = self.body(head)?;
        let (length, digest) = (whole.len(), hex(digest(&SHA256, &whole).as_ref()));
        println!(
            "{}",
            json!({"connection": self.number, "body": length, "digest": digest})
        );
        let body = format!("{}\n", json!({"head": head, "body": length}));
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        if !head.starts_with("HEAD ") {
            answer.push_str(&body);
        }
        self.stream.write_all(answer.as_bytes())
    }

    fn answer_slowly(&mut self) -> io::Result<()> {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        self.stream.write_all(head)?;
        loop {
            self.stream.write_all(b"5\r\ntick\n\r\n")?;
            thread::sleep(PAUSE);
        }
    }

    fn answer_at_the_end(&mut self) -> io::Result<()> {
        while self.fill()? > 0 {}
        self.stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    }

    fn change_protocol(&mut self) -> io::Result<()> {
        self.stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
              Upgrade: websocket\r\n\r\n",
        )?;
        let early = std::mem::take(&mut self.read);
        self.stream.write_all(&early)?;
        io::copy(&mut self.stream.try_clone()?, &mut self.stream)?;
        self.stream.shutdown(Shutdown::Write)
    }

    /// The next head, without the empty line; `None` if the client has closed the connection.
    fn head(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = position(&self.read, b"\r\n\r\n") {
                let head = text(&self.read[..end]);
                self.read.drain(..end + 4);
                return Ok(Some(head));
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads a body.
    fn body(&mut self, head: &str) -> io::Result<Vec<u8>> {
        if field(head, "transfer-encoding").is_some() {
            return self.chunks();
        }
        let length = field(head, "content-length").and_then(|text| text.parse().ok());
        let length = length.unwrap_or(0);
        self.take(length)
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let line = loop {
                if let Some(end) = position(&self.read, b"\r\n") {
                    break end;
                }
                self.fill_some()?;
            };
            let size = text(&self.read[..line]);
            let size = usize::from_str_radix(&size, 16);
            let size = size.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            self.take(line + 2)?;
            let chunk = self.take(size + 2)?;
            if size == 0 {
                return Ok(all);
            }
            all.extend_from_slice(&chunk[..size]);
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < length {
            self.fill_some()?;
        }
        Ok(self.read.drain(..length).collect())
    }

    fn fill_some(&mut self) -> io::Result<()> {
        match self.fill()? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16384];
        let length = self.stream.read(&mut buffer)?;
        self.read.extend_from_slice(&buffer[..length]);
        Ok(length)
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (own, value) = line.split_once(':')?;
        own.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn position(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Each octet as the character with its code.
fn text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}
