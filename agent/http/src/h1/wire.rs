//! Buffered reading and writing of connections, and the copying of bodies from one to another.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use ambit_account::{AccountExhausted, PodAccount};
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::io::poll_read_buf;

use super::super::client::Client;
use super::super::downstream::Downstream;
use super::super::gate::BodyError;
use super::super::progress::{BodyProgress, PumpError};
use super::body::{Body, Coding};
use super::chunked::BodyPiece;
use super::fields::{Fields, put_fields};
use super::room::Room;

/// The line end.
const CRLF: &[u8] = b"\r\n";

/// The reading side of a connection, with a buffer.
#[derive(Debug)]
pub(super) struct Source<R> {
    stream: R,
    /// Bytes that have been read and not used yet.
    pub(super) buffer: BytesMut,
    state: Reading,
    room: Room,
}

/// What is known of a connection that is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reading {
    Open,
    /// The end has been read.
    Ended,
    /// The sender has broken off.
    BrokenOff,
}

impl<R: AsyncRead + Unpin> Source<R> {
    pub(super) fn new(stream: R) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            state: Reading::Open,
            room: Room::default(),
        }
    }

    /// Whether the end has been read.
    pub(super) fn has_ended(&self) -> bool {
        self.state == Reading::Ended
    }

    /// Whether it is known that the sender has broken off.
    pub(super) fn has_broken_off(&self) -> bool {
        self.state == Reading::BrokenOff
    }

    /// Draws what the buffer takes from `memory` from now on.
    pub(super) fn draw_from(&mut self, memory: &PodAccount) {
        self.room.draw_from(memory);
    }

    /// Draws what the buffer takes from the account that another's is charged to.
    pub(super) fn draw_like<S>(&mut self, other: &mut Source<S>) {
        self.room = other.room.of_same_account();
    }

    /// Draws what the buffer takes while a part of a head waits in it.
    ///
    /// # Errors
    /// [`AccountExhausted`].
    pub(super) fn hold(&mut self) -> Result<(), AccountExhausted> {
        self.room.hold(&mut self.buffer)
    }

    /// Waits for bytes, reads them into the buffer, and returns how many; 0 at the end. Cancelling
    /// loses no bytes.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        if self.has_ended() {
            return Ok(0);
        }
        let Self {
            stream,
            buffer,
            room,
            ..
        } = self;
        let read = poll_fn(|context| {
            // An empty buffer is given up while waiting, so that an idle connection has none.
            room.make(buffer)
                .map_err(|exhausted| io::Error::new(io::ErrorKind::OutOfMemory, exhausted))?;
            let read = poll_read_buf(Pin::new(&mut *stream), context, buffer);
            match &read {
                Poll::Ready(Ok(length)) if !buffer.is_empty() => room.read(*length, buffer),
                _ if buffer.is_empty() => room.give_up(buffer),
                _ => {}
            }
            read
        });
        let read = read.await;
        match read {
            Ok(0) => self.state = Reading::Ended,
            Ok(1..) => {}
            Err(_) => self.state = Reading::BrokenOff,
        }
        read
    }
}

/// The writing side of a connection. A head waits here for the first piece of its body.
#[derive(Debug)]
pub(super) struct Sink<W> {
    stream: W,
    /// Bytes to be written before anything else.
    pub(super) pending: BytesMut,
}

impl<W: AsyncWrite + Unpin> Sink<W> {
    pub(super) fn new(stream: W) -> Self {
        let pending = BytesMut::new();
        Self { stream, pending }
    }

    /// Writes the pending bytes.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all_buf(&mut self.pending).await?;
        // Many connections wait with nothing pending.
        self.pending = BytesMut::new();
        self.stream.flush().await
    }

    /// Writes the pending bytes and a piece of a body.
    pub(super) async fn data(&mut self, mut data: Bytes, coding: Coding) -> io::Result<()> {
        let mut after = match coding {
            Coding::Plain => &[],
            Coding::Chunked => {
                let size = format!("{:x}\r\n", data.len());
                self.pending.extend_from_slice(size.as_bytes());
                CRLF
            }
        };
        let mut all = (&mut self.pending).chain(&mut data).chain(&mut after);
        self.stream.write_all_buf(&mut all).await
    }

    /// Writes the end of a body.
    pub(super) async fn finish(&mut self, trailers: &Fields, coding: Coding) -> io::Result<()> {
        if coding == Coding::Chunked {
            self.pending.extend_from_slice(b"0\r\n");
            put_fields(&mut self.pending, &trailers.headers, &trailers.spelling);
            self.pending.extend_from_slice(CRLF);
        }
        self.flush().await
    }

    /// Writes the pending bytes, and ends this side.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.stream.shutdown().await
    }
}

/// Both sides of a client's connection.
pub(super) struct BufferedClient<D> {
    pub(super) connection: Client<D>,
    pub(super) source: Source<Client<D>>,
    pub(super) sink: Sink<Client<D>>,
}

impl<D: Downstream> BufferedClient<D> {
    /// The sides of a connection from which `read` has been read already.
    pub(super) fn new(client: Client<D>, read: BytesMut) -> Self {
        let mut source = Source::new(client.clone());
        source.buffer = read;
        Self {
            source,
            sink: Sink::new(client.clone()),
            connection: client,
        }
    }

    /// Returns the connection, and what was read from it and not used. `None` if something else holds it.
    pub(super) fn into_stream(self) -> Option<(D, Bytes)> {
        let Source { stream, buffer, .. } = self.source;
        drop((stream, self.sink));
        Some((self.connection.into_stream()?, buffer.freeze()))
    }
}

/// Copies a body to its end. Nothing is read before all that was read has been written.
pub(super) async fn pump<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    source: &mut Source<R>,
    mut body: Body,
    sink: &mut Sink<W>,
    coding: Coding,
    progress: BodyProgress<'_>,
) -> Result<(), PumpError<BodyError, io::Error>> {
    let mut trailers = loop {
        let decoded = body.decode(&mut source.buffer);
        match decoded.map_err(|malformed| PumpError::Source(malformed.into()))? {
            BodyPiece::Data(data) => {
                let length = data.len();
                let written = sink.data(data, coding).await;
                written.map_err(PumpError::Sink)?;
                progress.carried(length);
            }
            BodyPiece::End(trailers) => break trailers,
            BodyPiece::NeedsMore => {
                sink.flush().await.map_err(PumpError::Sink)?;
                match source.fill().await {
                    Ok(0) if body.ends_with_connection() => break Fields::default(),
                    Ok(0) | Err(_) => return Err(PumpError::Source(BodyError::CutShort)),
                    Ok(_) => {}
                }
            }
        }
    };
    progress.retain_trailers(&mut trailers.headers);
    let finished = sink.finish(&trailers, coding).await;
    finished.map_err(PumpError::Sink)
}

/// Reads a short body and discards it.
///
/// # Errors
/// [`BodyError`].
pub(super) async fn discard<R: AsyncRead + Unpin>(
    source: &mut Source<R>,
    mut body: Body,
) -> Result<(), BodyError> {
    loop {
        match body.decode(&mut source.buffer)? {
            BodyPiece::Data(_) => {}
            BodyPiece::End(_) => return Ok(()),
            BodyPiece::NeedsMore => match source.fill().await {
                Ok(0) | Err(_) => return Err(BodyError::CutShort),
                Ok(_) => {}
            },
        }
    }
}
