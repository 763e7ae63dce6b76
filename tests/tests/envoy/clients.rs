//! The clients of one listener of Envoy's.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

use crate::case::Protocol;
use crate::connection::{Answer, Connection, Stream};
use crate::evaluator::Outcome;
use crate::http2;
use crate::peer::Peer;
use crate::proxy::{Envoy, PATIENCE};
use crate::request::Request;

/// Bytes that are neither HTTP nor TLS.
const OPAQUE: &[u8] = b"\x00\x01opaque\r\n\r\n";

/// The connections of all peers to one listener.
pub(crate) struct Clients<'a> {
    envoy: &'a Envoy,
    server: SocketAddrV4,
    protocol: Protocol,
    open: Vec<(Peer, Ipv4Addr, Open)>,
}

/// A connection that waits for a request.
enum Open {
    Http1(Connection),
    Http2(http2::Connection),
}

impl<'a> Clients<'a> {
    /// Without connections, so far.
    pub(crate) fn new(envoy: &'a Envoy, server: SocketAddrV4, protocol: Protocol) -> Self {
        Self {
            envoy,
            server,
            protocol,
            open: Vec::new(),
        }
    }

    /// The verdict on a request, or on a connection in its place.
    pub(crate) fn judge(&mut self, request: &Request) -> Result<Outcome> {
        if self.protocol == Protocol::Opaque {
            let outcome = self.send_opaque(request.peer, request.source);
            return outcome.with_context(|| self.about(request));
        }
        Ok(match self.ask(request)?.status {
            200 => Outcome::Allowed,
            403 => Outcome::Denied,
            400 => Outcome::Malformed,
            other => Outcome::Other(other),
        })
    }

    /// Envoy's answer to a request.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Answer> {
        self.send(request).with_context(|| self.about(request))
    }

    fn about(&self, request: &Request) -> String {
        format!("{request:?}\n{}", self.envoy.log())
    }

    fn send(&mut self, request: &Request) -> Result<Answer> {
        let (peer, source) = (request.peer, request.source);
        let is_own = |one: &(Peer, Ipv4Addr, _)| (one.0, one.1) == (peer, source);
        let mut connection = match self.open.iter().position(is_own) {
            Some(place) => self.open.swap_remove(place).2,
            None => self.open(peer, source)?,
        };
        let answer = match &mut connection {
            Open::Http1(connection) => connection.exchange(request)?,
            Open::Http2(connection) => connection.exchange(request)?,
        };
        if answer.keeps_open {
            self.open.push((peer, source, connection));
        }
        Ok(answer)
    }

    /// Sends bytes that are not HTTP. They come back, or the connection is closed.
    fn send_opaque(&self, peer: Peer, source: Ipv4Addr) -> Result<Outcome> {
        let mut stream = self.stream(peer, source)?;
        let mut echo = [0; OPAQUE.len()];
        let exchanged = stream
            .write_all(OPAQUE)
            .and_then(|()| stream.flush())
            .and_then(|()| stream.read_exact(&mut echo));
        match exchanged {
            Ok(()) => {
                ensure!(echo == OPAQUE, "another echo");
                Ok(Outcome::Allowed)
            }
            Err(error) if is_end(&error) => Ok(Outcome::Denied),
            Err(error) => Err(error.into()),
        }
    }

    fn open(&self, peer: Peer, source: Ipv4Addr) -> Result<Open> {
        match self.protocol {
            Protocol::Http1 => Ok(Open::Http1(Connection::new(self.stream(peer, source)?))),
            Protocol::Http2 => {
                let tls = self.tls(peer)?.map(|config| (config, self.name()));
                let socket = connect(source, self.server)?;
                Ok(Open::Http2(http2::Connection::new(socket, tls)?))
            }
            Protocol::Opaque => bail!("no request is sent over it"),
        }
    }

    /// A connection of bytes, with the peer's TLS.
    fn stream(&self, peer: Peer, source: Ipv4Addr) -> Result<Box<dyn Stream>> {
        let socket = connect(source, self.server)?;
        let Some(config) = self.tls(peer)? else {
            return Ok(Box::new(socket));
        };
        let tls = ClientConnection::new(config, self.name())?;
        Ok(Box::new(StreamOwned::new(tls, socket)))
    }

    /// TLS as a peer speaks it; `None` for one in plaintext.
    fn tls(&self, peer: Peer) -> Result<Option<Arc<ClientConfig>>> {
        let Peer::Known(principal) = peer else {
            return Ok(None);
        };
        let config = self.envoy.identities().client(principal);
        Ok(Some(Arc::clone(config.context("no such peer")?)))
    }

    fn name(&self) -> ServerName<'static> {
        ServerName::IpAddress(IpAddr::from(*self.server.ip()).into())
    }
}

/// Whether an error says that the other side has closed the connection.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
    )
}

fn connect(source: Ipv4Addr, server: SocketAddrV4) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&SocketAddr::from(server).into())?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}
