//! An HTTP/2 client that writes whatever frames it likes, and reads nothing.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::impostor::Credentials;
use crate::netns::Netns;
use crate::tls::tls_client;

/// How long a write may be held back before the client gives up.
const PATIENCE: Duration = Duration::from_secs(5);

/// An HTTP/2 frame (RFC 9113, section 4.1).
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What follows its head.
    pub payload: Vec<u8>,
}

impl Frame {
    /// An empty SETTINGS.
    pub fn settings() -> Self {
        Self::new(4, 0, 0, &[])
    }

    /// A PING.
    pub fn ping() -> Self {
        Self::new(6, 0, 0, &[7; 8])
    }

    /// The head of a CONNECT, which leaves the stream open.
    pub fn connect(stream: u32, authority: &str) -> Self {
        const END_HEADERS: u8 = 4;
        // RFC 7541, section 6.2.2: literals without indexing, of names 2 and 1 of the static table.
        let mut block = vec![2, 7];
        block.extend_from_slice(b"CONNECT");
        let length = u8::try_from(authority.len()).unwrap_or(u8::MAX);
        block.extend_from_slice(&[1, length]);
        block.extend_from_slice(authority.as_bytes());
        Self::new(1, END_HEADERS, stream, &block)
    }

    /// A RST_STREAM with CANCEL.
    pub fn reset(stream: u32) -> Self {
        Self::new(3, 0, stream, &8_u32.to_be_bytes())
    }

    fn new(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        Self {
            kind,
            flags,
            stream,
            payload: payload.to_vec(),
        }
    }

    fn write_to(&self, bytes: &mut Vec<u8>) {
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_be_bytes()[1..]);
        bytes.extend_from_slice(&[self.kind, self.flags]);
        bytes.extend_from_slice(&self.stream.to_be_bytes());
        bytes.extend_from_slice(&self.payload);
    }
}

/// A connection of a hostile client.
pub struct HostileClient(StreamOwned<ClientConnection, TcpStream>);

impl HostileClient {
    /// Connects from a network namespace, bypassing its node's agent.
    ///
    /// # Errors
    ///
    /// If there is no connection.
    pub fn connect(from: &Netns, to: SocketAddr, credentials: &Credentials) -> Result<Self> {
        let stream = from.enter(|| TcpStream::connect_timeout(&to, PATIENCE))??;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let config = tls_client(Some(credentials))?;
        let session = ClientConnection::new(config, ServerName::try_from("mesh.invalid")?)?;
        let mut client = Self(StreamOwned::new(session, stream));
        client.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        client.send(&[Frame::settings()])?;
        Ok(client)
    }

    /// Whether the server has not ended the connection. Its data is discarded, so nothing can be read
    /// from now on.
    pub fn is_connected(&mut self) -> bool {
        is_connected(&mut self.0.sock)
    }

    fn send(&mut self, frames: &[Frame]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for frame in frames {
            frame.write_to(&mut bytes);
        }
        self.0.write_all(&bytes)
    }

    /// Sends what `next` makes of the numbers 0, 1, 2, …, for some time, or until the server ends the
    /// connection or reads no more.
    pub fn flood(mut self, time: Duration, next: impl Fn(u32) -> Vec<Frame>) {
        let start = Instant::now();
        let in_time = (0..).take_while(|_| start.elapsed() < time);
        for number in in_time {
            if self.send(&next(number)).is_err() {
                return;
            }
        }
    }
}

/// Whether the other side has not ended a connection. Its data is discarded.
pub fn is_connected(stream: &mut TcpStream) -> bool {
    if stream.set_nonblocking(true).is_err() {
        return false;
    }
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}
