//! `lab-dialer`: dials each address of its standard input, one a line, waits for a line from the
//! server, and prints the result as JSON: `to`, `source` (its own address on that connection) and
//! `met`, which is `answer` or the error's name. Each call has its own port: the kernel reports a
//! denial once for all segments from the same port within a minute.

use std::error::Error;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Socket, Type};

/// The first call's port, below the ephemeral ones.
const FIRST_PORT: u16 = 20_000;

/// The limit for the connection, and for the server's line.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    for (port, line) in (FIRST_PORT..).zip(io::stdin().lines()) {
        let to: SocketAddr = line?.parse()?;
        let source = source_towards(to)?;
        let met = match dial(port, to) {
            Ok(()) => "answer".to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        };
        println!(
            "{}",
            json!({"to": to.to_string(), "source": source.to_string(), "met": met})
        );
    }
    Ok(())
}

fn dial(port: u16, to: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(any(to), port).into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    match BufReader::new(stream).read_line(&mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// The address that the route to `to` gives; a datagram socket is asked, which sends nothing.
fn source_towards(to: SocketAddr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind((any(to), 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

/// The unspecified address of the same family as another address.
fn any(like: SocketAddr) -> IpAddr {
    match like {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
