//! A handshake, driven by rustls.

use std::future::poll_fn;
use std::io;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, Error, ExtractedSecrets, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::key::Schedule;
use crate::record::{HEADER, LARGEST_RECORD, RecordFailure, Records, body_length};

/// How much one read takes.
const READ: usize = 4 << 10;

/// The most that may wait for the rest of a handshake message. It is what rustls takes.
const MOST_WAITING: usize = (64 << 10) + LARGEST_RECORD;

/// One side of a connection.
pub trait Side: DerefMut<Target: Deref<Target = CommonState>> {
    /// What rustls keeps for this side.
    type Data;

    /// Takes in complete records.
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// Takes the keys.
    ///
    /// # Errors
    /// If the handshake is not complete, or the configuration does not allow it.
    fn into_keys(self) -> Result<(ExtractedSecrets, Schedule), Error>;
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn into_keys(self) -> Result<(ExtractedSecrets, Schedule), Error> {
        let (secrets, kernel) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Schedule::Client(kernel)))
    }
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn into_keys(self) -> Result<(ExtractedSecrets, Schedule), Error> {
        let (secrets, kernel) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Schedule::Server(kernel)))
    }
}

/// A connection whose handshake is done.
pub struct Shaken<S, C> {
    socket: S,
    session: C,
    /// Records that came after the handshake.
    early: Vec<u8>,
}

impl<S, C: Side> Shaken<S, C> {
    /// What was agreed, and the certificates of the peer.
    pub fn session(&self) -> &CommonState {
        &self.session
    }

    /// Takes the socket, the keys, and the records that came after the handshake.
    ///
    /// # Errors
    /// [`RecordFailure::Keys`].
    pub fn into_parts(self) -> Result<(S, Records, Vec<u8>), RecordFailure> {
        let (secrets, schedule) = self.session.into_keys().map_err(RecordFailure::Keys)?;
        Ok((self.socket, Records::new(secrets, schedule)?, self.early))
    }
}

/// Shakes hands as the client.
///
/// # Errors
/// If the network or TLS fails. An error of TLS is inside as a [`rustls::Error`].
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    socket: S,
) -> io::Result<Shaken<S, UnbufferedClientConnection>> {
    let session = UnbufferedClientConnection::new(config, name).map_err(invalid)?;
    Handshake::new(socket, session).shake().await
}

/// Shakes hands as the server.
///
/// # Errors
/// As [`connect`].
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<ServerConfig>,
    socket: S,
) -> io::Result<Shaken<S, UnbufferedServerConnection>> {
    let session = UnbufferedServerConnection::new(config).map_err(invalid)?;
    Handshake::new(socket, session).shake().await
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

struct Handshake<S, C> {
    socket: S,
    session: C,
    incoming: Vec<u8>,
    /// How much of `incoming` rustls has been shown: whole records.
    shown: usize,
    outgoing: Vec<u8>,
}

/// What a handshake needs next.
enum Need {
    Nothing,
    Sending,
    Record,
    Keys,
}

impl<S: AsyncRead + AsyncWrite + Unpin, C: Side> Handshake<S, C> {
    fn new(socket: S, session: C) -> Self {
        Self {
            socket,
            session,
            incoming: Vec::new(),
            shown: 0,
            outgoing: Vec::new(),
        }
    }

    async fn shake(mut self) -> io::Result<Shaken<S, C>> {
        loop {
            let need = match self.step() {
                Ok(need) => need,
                Err(error) => {
                    self.send_alert().await;
                    return Err(invalid(error));
                }
            };
            match need {
                Need::Nothing => {}
                Need::Sending => poll_fn(|context| self.poll_send(context)).await?,
                Need::Record => {
                    while !self.show_record() {
                        self.read().await?;
                    }
                }
                Need::Keys => {
                    return Ok(Shaken {
                        socket: self.socket,
                        session: self.session,
                        early: self.incoming,
                    });
                }
            }
        }
    }

    fn step(&mut self) -> Result<Need, Error> {
        let UnbufferedStatus { discard, state } =
            self.session.process(&mut self.incoming[..self.shown]);
        let need = match state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                encode(&mut data, &mut self.outgoing);
                Ok(Need::Nothing)
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(Need::Sending)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Need::Record),
            Ok(ConnectionState::WriteTraffic(_)) => Ok(Need::Keys),
            Ok(_) => Err(Error::General("the peer ended its handshake".into())),
            Err(error) => Err(error),
        };
        // rustls counts on this after an error, too.
        self.incoming.drain(..discard);
        self.shown -= discard;
        match need? {
            // A server may send before it knows who its client is. It does not want to.
            Need::Keys if self.session.is_handshaking() => Ok(Need::Record),
            // Messages do not span keys (RFC 8446, section 5.1).
            Need::Keys if self.shown > 0 => Err(Error::General(
                "a message goes on after the handshake".into(),
            )),
            need => Ok(need),
        }
    }

    /// Shows one more record to rustls, if it is complete.
    fn show_record(&mut self) -> bool {
        let next = &self.incoming[self.shown..];
        let Some(header) = next.first_chunk::<HEADER>() else {
            return false;
        };
        let end = HEADER + body_length(*header);
        if end > LARGEST_RECORD {
            // rustls says what is wrong with it.
            self.shown = self.incoming.len();
            return true;
        }
        if next.len() < end {
            return false;
        }
        self.shown += end;
        true
    }

    async fn read(&mut self) -> io::Result<()> {
        if self.incoming.len() >= MOST_WAITING {
            return Err(invalid(Error::General(
                "a handshake message is too long".into(),
            )));
        }
        self.incoming.reserve(READ);
        match self.socket.read_buf(&mut self.incoming).await? {
            0 => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "tls handshake eof",
            )),
            _ => Ok(()),
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let socket = Pin::new(&mut self.socket);
            match ready!(socket.poll_write(context, &self.outgoing))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.outgoing.drain(..written)),
            }
        }
        Pin::new(&mut self.socket).poll_flush(context)
    }

    /// Tells the peer why, if there is room for that.
    async fn send_alert(&mut self) {
        // Nothing more is read: rustls hands out what waits before that.
        while self.session.wants_write() && matches!(self.step(), Ok(Need::Nothing)) {}
        poll_fn(|context| {
            let _ = self.poll_send(context);
            Poll::Ready(())
        })
        .await;
    }
}

fn encode<D>(data: &mut EncodeTlsData<'_, D>, into: &mut Vec<u8>) {
    let start = into.len();
    let mut size = 0;
    loop {
        into.resize(start + size, 0);
        match data.encode(&mut into[start..]) {
            Ok(written) => return into.truncate(start + written),
            Err(EncodeError::InsufficientSize(error)) => size = error.required_size,
            Err(EncodeError::AlreadyEncoded) => return into.truncate(start),
        }
    }
}
