//! `lab-escape WAY ADDRESS [ARGUMENT]`: makes a TCP connection in an unusual way, sends a request that
//! names the way, and prints the result as JSON: `answer` or `failure`.
//! `lab-escape forge ADDRESS DEVICE SOURCE COUNT DATA`: sends SYNs from successive ports of a source.
//! `lab-escape accept ADDRESS`: accepts one connection by io_uring and prints its source.
//! `lab-escape meddle DIRECTORY LAST_ID`: tries to get access to kernel programs, and prints what it got.

mod kernel;
mod packet;
mod raw;
mod ring;

use std::error::Error;
use std::io::{self, Read, Write};
use std::mem::size_of_val;
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

type Failure = Box<dyn Error>;

/// The limit for each step.
const PATIENCE: Duration = Duration::from_secs(4);

/// The duration of a race.
const RACE: Duration = Duration::from_secs(2);

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [way, address, rest @ ..] = arguments.as_slice() else {
        return Err("usage: lab-escape WAY ADDRESS [ARGUMENT]".into());
    };
    match way.as_str() {
        "accept" => return ring::accept(address.parse()?),
        "meddle" => {
            let last_id = rest.first().ok_or("no id")?.parse()?;
            println!("{}", kernel::meddle(address.as_ref(), last_id));
            return Ok(());
        }
        "forge" => {
            let [device, source, count, data] = rest else {
                return Err("usage: lab-escape forge ADDRESS DEVICE SOURCE COUNT DATA".into());
            };
            let (source, count) = (source.parse()?, count.parse()?);
            return raw::forge(device, source, address.parse()?, count, data);
        }
        _ => {}
    }
    let address: SocketAddr = address.parse()?;
    let argument = rest.first().map_or("", String::as_str);
    let said = match go(way, address, argument) {
        Ok(answer) => json!({"answer": answer}),
        Err(failure) => json!({"failure": failure.to_string()}),
    };
    println!("{said}");
    Ok(())
}

fn go(way: &str, to: SocketAddr, argument: &str) -> Result<Value, Failure> {
    let request = format!("GET /{way} HTTP/1.1\r\nhost: escape\r\nconnection: close\r\n\r\n");
    let connected = match way {
        "plain" => connect(socket(to)?, to)?,
        "device" => {
            let socket = socket(to)?;
            socket.bind_device(Some(argument.as_bytes()))?;
            connect(socket, to)?
        }
        "mark" => {
            let socket = socket(to)?;
            socket.set_mark(argument.parse()?)?;
            connect(socket, to)?
        }
        "source" => connect(bound(to, argument.parse()?)?, to)?,
        "mptcp" => {
            let mptcp = Protocol::from(libc::IPPROTO_MPTCP);
            connect(Socket::new(domain(to), Type::STREAM, Some(mptcp))?, to)?
        }
        "mapped" => {
            let SocketAddr::V4(v4) = to else {
                return Err("only IPv4 addresses can be mapped".into());
            };
            let mapped = SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port()));
            connect(socket(mapped)?, mapped)?
        }
        "fast-open" => return fast_open(to, &request),
        "reconnect" => connect(disconnected(argument.parse()?)?, to)?,
        "race" => return race(to, argument.parse()?, &request),
        "udp" => return udp(to),
        "ring" => ring::connect(socket(to)?, to)?,
        "raw" => return Ok(raw::knock(raw::By::Routing, argument.parse()?, to)?.into()),
        "packet" => return Ok(raw::knock(raw::By::Device, argument.parse()?, to)?.into()),
        other => return Err(format!("no such way: {other}").into()),
    };
    ask(connected, &request)
}

fn domain(address: SocketAddr) -> Domain {
    Domain::for_address(address)
}

fn socket(to: SocketAddr) -> io::Result<Socket> {
    Socket::new(domain(to), Type::STREAM, Some(Protocol::TCP))
}

fn connect(socket: Socket, to: SocketAddr) -> io::Result<Socket> {
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket)
}

/// A socket with a source that need not be its host's own.
fn bound(to: SocketAddr, source: SocketAddr) -> io::Result<Socket> {
    let socket = socket(to)?;
    let (level, option) = match to {
        SocketAddr::V4(_) => (libc::SOL_IP, libc::IP_TRANSPARENT),
        SocketAddr::V6(_) => (libc::SOL_IPV6, libc::IPV6_TRANSPARENT),
    };
    let on: libc::c_int = 1;
    let size = size_of_val(&on) as libc::socklen_t;
    // SAFETY: `on` outlives the call, and `size` is its size.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size,
        )
    };
    if set != 0 {
        return Err(io::Error::last_os_error());
    }
    socket.bind(&source.into())?;
    Ok(socket)
}

/// A socket that was connected elsewhere before.
fn disconnected(elsewhere: SocketAddr) -> io::Result<Socket> {
    let socket = connect(socket(elsewhere)?, elsewhere)?;
    dissolve(&socket)?;
    Ok(socket)
}

/// connect(2) with AF_UNSPEC.
fn dissolve(socket: &Socket) -> io::Result<()> {
    // SAFETY: all zeroes is an address of the family AF_UNSPEC.
    let unspecified: libc::sockaddr = unsafe { std::mem::zeroed() };
    let size = size_of_val(&unspecified) as libc::socklen_t;
    // SAFETY: `unspecified` outlives the call, and `size` is its size.
    match unsafe { libc::connect(socket.as_raw_fd(), &raw const unspecified, size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Data in the SYN, without a connect.
fn fast_open(to: SocketAddr, request: &str) -> Result<Value, Failure> {
    let socket = socket(to)?;
    let sent =
        socket.send_to_with_flags(request.as_bytes(), &SockAddr::from(to), libc::MSG_FASTOPEN)?;
    if sent != request.len() {
        return Err("the request was cut".into());
    }
    receive(socket)
}

/// Connects one socket to two addresses in turn from two threads, and sends requests on it meanwhile.
fn race(to: SocketAddr, elsewhere: SocketAddr, request: &str) -> Result<Value, Failure> {
    let start = Instant::now();
    let mut answers = Vec::new();
    while start.elapsed() < RACE {
        let socket = socket(to)?;
        socket.set_nonblocking(true)?;
        thread::scope(|scope| {
            for address in [to, elsewhere] {
                let socket = &socket;
                scope.spawn(move || {
                    for _ in 0..20 {
                        // Any of them may fail: it is a race.
                        let _ = socket.connect(&address.into());
                        let _ = dissolve(socket);
                    }
                    let _ = socket.connect(&address.into());
                });
            }
        });
        socket.set_nonblocking(false)?;
        if let Ok(answer) = ask(socket, request) {
            answers.push(answer);
        }
    }
    Ok(answers.into())
}

fn udp(to: SocketAddr) -> Result<Value, Failure> {
    let any = match to {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to)?;
    socket.send(b"datagram")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into())
}

fn ask(socket: Socket, request: &str) -> Result<Value, Failure> {
    SockRef::from(&socket).set_write_timeout(Some(PATIENCE))?;
    (&socket).write_all(request.as_bytes())?;
    receive(socket)
}

/// The JSON that the server answers with before it ends the connection, as this end does.
fn receive(socket: Socket) -> Result<Value, Failure> {
    let mut stream = TcpStream::from(socket);
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    let text = String::from_utf8_lossy(&received);
    let (_, body) = text.split_once("\r\n\r\n").ok_or("no answer")?;
    Ok(serde_json::from_str(body)?)
}
