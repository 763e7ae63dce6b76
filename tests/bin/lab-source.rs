//! `lab-source ADDRESS …`: an HTTP/1 server whose answers end in every way in which applications end them. One
//! request per connection; its path says what happens:
//!
//! | path | answer |
//! |---|---|
//! | `/whole/N` | N bytes, then the connection is closed at once |
//! | `/endless` | bytes until the client is gone |
//! | `/break/N/M` | M of the N bytes that the head promises, then the end: `close` with everything read |
//! | `/unread/N/M` | the same, with a part of the request unread: the kernel sends a reset |
//! | `/cut/N` | N bytes of an answer without a length, and then a reset, once the other side's kernel has them |
//! | `/upgraded/N` | the same, of another protocol, to a request that asks for it |
//! | `/killed/N/M` | the same, by a process of its own that is killed |
//! | `/early` | 413 while the request's body is still coming, then a close with the body unread |
//! | `/ignored` | nothing; the body is never read |
//! | `/late/MS` | nothing; so many milliseconds later, all that the client sends is read, and its length printed as JSON |
//! | `/taken` | the number of bytes of the body, read to its end |
//! | `/kept/N` | N bytes; the connection is kept for more requests |

use std::error::Error;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use ambit_tests::pattern;
use nix::sys::signal::{Signal, raise};
use serde_json::json;
use socket2::SockRef;

/// The word that makes this the process that is killed; its standard input is the connection.
const VICTIM: &str = "--victim";

/// Of a thread that serves one connection.
const STACK: usize = 128 << 10;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 4096;

/// Of an answer without an end: a thousand of them that no one reads are not to fill the machine's memory.
const SEND_BUFFER: usize = 64 << 10;

/// One write.
const CHUNK: usize = 64 << 10;

/// Between two looks at what is acknowledged.
const LOOK: Duration = Duration::from_millis(5);

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, promised, sent] = words.as_slice()
        && word == VICTIM
    {
        return Ok(be_killed(promised.parse()?, sent.parse()?)?);
    }
    let mut listeners = Vec::new();
    for address in &words {
        let address: SocketAddr = address.parse()?;
        let listener = listen(address)?;
        listeners.push(thread::spawn(move || accept(&listener)));
    }
    println!("listening");
    for listener in listeners {
        listener.join().map_err(|_| "a listener panicked")??;
    }
    Ok(())
}

fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(at);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn accept(listener: &TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        let served = thread::Builder::new().stack_size(STACK).spawn(move || {
            // What a client does to its connection ends that one only.
            let _ = serve(stream);
        });
        served?;
    }
}

/// Reads to the end of the head only, byte by byte: what follows stays in the kernel.
fn head(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    String::from_utf8(head)
        .map(Some)
        .map_err(|_| ErrorKind::InvalidData.into())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    while let Some(head) = head(&mut stream)? {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let words: Vec<&str> = path.split('/').skip(1).collect();
        match words.as_slice() {
            ["kept", bytes] => {
                let bytes = number(bytes)?;
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n")?;
                send(&mut stream, bytes)?;
            }
            ["whole", bytes] => return whole(&mut stream, number(bytes)?),
            ["endless"] => return endless(&mut stream),
            ["break", promised, sent] => {
                return part(&mut stream, number(promised)?, number(sent)?);
            }
            ["unread", promised, sent] => {
                part(&mut stream, number(promised)?, number(sent)?)?;
                return wait_for_unread(&stream);
            }
            ["cut", sent] => {
                write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
                return cut(stream, number(sent)?);
            }
            ["upgraded", sent] => {
                let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade";
                write!(stream, "{head}\r\nUpgrade: source\r\n\r\n")?;
                return cut(stream, number(sent)?);
            }
            ["killed", promised, sent] => return kill(stream, promised, sent),
            ["early"] => {
                wait_for_unread(&stream)?;
                let body = "too much\n";
                return write!(
                    stream,
                    "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\
                     Content-Length: {}\r\n\r\n{body}",
                    body.len()
                );
            }
            ["ignored"] => loop {
                thread::park();
            },
            ["late", wait] => return late(stream, number(wait)?),
            ["taken"] => return taken(stream, &head),
            _ => {
                return write!(
                    stream,
                    "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
                );
            }
        }
    }
    Ok(())
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(|_| ErrorKind::InvalidInput.into())
}

fn whole(stream: &mut TcpStream, bytes: u64) -> io::Result<()> {
    part(stream, bytes, bytes)
}

fn part(stream: &mut TcpStream, promised: u64, sent: u64) -> io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nConnection: close";
    write!(stream, "{head}\r\nContent-Length: {promised}\r\n\r\n")?;
    send(stream, sent)
}

fn endless(stream: &mut TcpStream) -> io::Result<()> {
    SockRef::from(&*stream).set_send_buffer_size(SEND_BUFFER)?;
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
    send(stream, u64::MAX)
}

fn send(stream: &mut TcpStream, bytes: u64) -> io::Result<()> {
    let mut at = 0;
    while at < bytes {
        let length = (bytes - at).min(CHUNK as u64);
        stream.write_all(&pattern(at, length as usize))?;
        at += length;
    }
    Ok(())
}

/// So that the close that follows finds bytes that were not read, and is a reset.
fn wait_for_unread(stream: &TcpStream) -> io::Result<()> {
    stream.peek(&mut [0]).map(drop)
}

/// Sends so many bytes, and resets the connection once they are acknowledged.
fn cut(mut stream: TcpStream, bytes: u64) -> io::Result<()> {
    send(&mut stream, bytes)?;
    while unacknowledged(&stream)? > 0 {
        thread::sleep(LOOK);
    }
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}

fn unacknowledged(stream: &TcpStream) -> io::Result<libc::c_int> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ, which is SIOCOUTQ for a socket, writes one int, to `bytes`.
    match unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) } {
        0 => Ok(bytes),
        _ => Err(io::Error::last_os_error()),
    }
}

fn kill(stream: TcpStream, promised: &str, sent: &str) -> io::Result<()> {
    let mut victim = Command::new(std::env::current_exe()?);
    victim.args([VICTIM, promised, sent]);
    victim.stdin(Stdio::from(OwnedFd::from(stream)));
    let mut running = victim.spawn()?;
    // It holds a copy of the connection.
    drop(victim);
    running.wait().map(drop)
}

fn be_killed(promised: u64, sent: u64) -> io::Result<()> {
    let connection = nix::unistd::dup(io::stdin()).map_err(io::Error::from)?;
    part(&mut TcpStream::from(connection), promised, sent)?;
    raise(Signal::SIGKILL).map_err(io::Error::from)
}

fn late(mut stream: TcpStream, wait: u64) -> io::Result<()> {
    thread::sleep(Duration::from_millis(wait));
    let mut buffer = [0; CHUNK / 4];
    let (mut bytes, mut intact) = (0, true);
    let end = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break "closed".to_owned(),
            Ok(length) => {
                intact &= pattern(bytes, length) == buffer[..length];
                bytes += length as u64;
            }
            Err(error) => break format!("{:?}", error.kind()),
        }
    };
    println!("{}", json!({"late": bytes, "intact": intact, "end": end}));
    Ok(())
}

fn taken(stream: TcpStream, head: &str) -> io::Result<()> {
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim())
    });
    let length = number(length.unwrap_or("0"))?;
    let mut reader = BufReader::with_capacity(CHUNK, stream);
    let mut taken = 0;
    while taken < length {
        let arrived = reader.fill_buf()?.len();
        if arrived == 0 {
            break;
        }
        reader.consume(arrived);
        taken += arrived as u64;
    }
    let body = taken.to_string();
    let mut stream = reader.into_inner();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
