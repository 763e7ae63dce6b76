//! Buffered sides of a connection, and bodies moved between them.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::io::poll_read_buf;

use super::super::client::{Client, Downstream};
use super::super::progress::{MessageKind, Progress};
use super::body::{Body, BodyDecoder, Coding, Framing};
use super::chunked::BodyPiece;
use super::fields::Malformed;

/// What is read at once.
const CHUNK: usize = 64 << 10;

/// Line ends around a chunk.
const CRLF: &[u8] = b"\r\n";

/// A side that is read.
#[derive(Debug)]
pub(in super::super) struct Source<R> {
    stream: R,
    /// What was read and not used yet.
    pub(super) buffer: BytesMut,
    ended: bool,
}

impl<R: AsyncRead + Unpin> Source<R> {
    pub(in super::super) fn new(stream: R) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            ended: false,
        }
    }

    /// Whether nothing more comes.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Reads what has come, or waits for it: how much; 0 at the end. Nothing is lost when it is
    /// dropped.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        let Self { stream, buffer, .. } = self;
        let read = poll_fn(|context| {
            // Room is given up while nothing comes, so that an idle connection has none.
            buffer.reserve(CHUNK);
            let read = poll_read_buf(Pin::new(&mut *stream), context, buffer);
            if buffer.is_empty() {
                *buffer = BytesMut::new();
            }
            read
        });
        let length = read.await?;
        self.ended = length == 0;
        Ok(length)
    }
}

/// A side that is written. Heads wait for the first piece of their body.
#[derive(Debug)]
pub(in super::super) struct Sink<W> {
    stream: W,
    /// What is to be written before anything else.
    pub(super) pending: BytesMut,
}

impl<W: AsyncWrite + Unpin> Sink<W> {
    pub(in super::super) fn new(stream: W) -> Self {
        let pending = BytesMut::new();
        Self { stream, pending }
    }

    /// Writes what waits.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all_buf(&mut self.pending).await?;
        self.stream.flush().await
    }

    /// Writes a piece of a body behind what waits.
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

    /// Ends a body.
    pub(super) async fn finish(&mut self, trailers: &HeaderMap, coding: Coding) -> io::Result<()> {
        if coding == Coding::Chunked {
            self.pending.extend_from_slice(b"0\r\n");
            for (name, value) in trailers {
                for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), CRLF] {
                    self.pending.extend_from_slice(part);
                }
            }
            self.pending.extend_from_slice(CRLF);
        }
        self.flush().await
    }

    /// Ends this side.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.stream.shutdown().await
    }
}

/// The client.
pub(in super::super) struct BufferedClient<D> {
    pub(super) source: Source<Client<D>>,
    pub(super) sink: Sink<Client<D>>,
}

impl<D: Downstream> BufferedClient<D> {
    /// Both sides of a connection of which `read` was read already.
    pub(in super::super) fn new(client: &Client<D>, read: BytesMut) -> Self {
        let mut source = Source::new(client.clone());
        source.buffer = read;
        Self {
            source,
            sink: Sink::new(client.clone()),
        }
    }
}

/// Why a body did not reach its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum PumpError {
    /// It is malformed.
    #[error("the body is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// Its sender broke off.
    #[error("the body broke off")]
    CutShort,
    /// Its receiver takes no more.
    #[error("the body is not taken: {0}")]
    NotTaken(#[source] io::Error),
}

/// Moves a body to its end. Nothing is read before what was read is written.
pub(super) async fn pump<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    source: &mut Source<R>,
    mut body: Body,
    sink: &mut Sink<W>,
    coding: Coding,
    (progress, message): (&Progress<'_>, MessageKind),
) -> Result<(), PumpError> {
    let trailers = loop {
        match body.decode(&mut source.buffer)? {
            BodyPiece::Data(data) => {
                let length = data.len();
                let written = sink.data(data, coding).await;
                written.map_err(PumpError::NotTaken)?;
                progress.carried(message, length);
            }
            BodyPiece::End(trailers) => break trailers,
            BodyPiece::NeedsMore => {
                sink.flush().await.map_err(PumpError::NotTaken)?;
                match source.fill().await {
                    Ok(0) if body.ends_with_connection() => break HeaderMap::new(),
                    Ok(0) | Err(_) => return Err(PumpError::CutShort),
                    Ok(_) => {}
                }
            }
        }
    };
    let trailers = progress.trailers(message, trailers);
    let finished = sink.finish(&trailers, coding).await;
    finished.map_err(PumpError::NotTaken)
}

/// Reads a short body and forgets it.
///
/// # Errors
/// [`PumpError::CutShort`].
pub(super) async fn discard<R: AsyncRead + Unpin>(
    source: &mut Source<R>,
    mut body: Body,
) -> Result<(), PumpError> {
    loop {
        match body.decode(&mut source.buffer)? {
            BodyPiece::Data(_) => {}
            BodyPiece::End(_) => return Ok(()),
            BodyPiece::NeedsMore => match source.fill().await {
                Ok(0) | Err(_) => return Err(PumpError::CutShort),
                Ok(_) => {}
            },
        }
    }
}

/// Who broke off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(in super::super) enum Broken {
    /// The client.
    #[error("the client broke off")]
    Client,
    /// The application.
    #[error("the application broke off")]
    Application,
}

/// Relays until both directions have ended; the end of one leaves the other running.
///
/// # Errors
/// [`Broken`].
pub(in super::super) async fn relay_raw<D, R, W>(
    client: &mut BufferedClient<D>,
    source: &mut Source<R>,
    sink: &mut Sink<W>,
    progress: &Progress<'_>,
) -> Result<(), Broken>
where
    D: Downstream,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let to_application = async {
        let sent = raw(&mut client.source, sink, (progress, MessageKind::Request)).await;
        sent.map_err(|is_source| match is_source {
            End::Source => Broken::Client,
            End::Sink => Broken::Application,
        })
    };
    let to_client = async {
        let sent = raw(source, &mut client.sink, (progress, MessageKind::Response)).await;
        sent.map_err(|is_source| match is_source {
            End::Source => Broken::Application,
            End::Sink => Broken::Client,
        })
    };
    tokio::try_join!(to_application, to_client).map(|_| ())
}

/// Which end of a direction failed.
enum End {
    Source,
    Sink,
}

async fn raw<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    source: &mut Source<R>,
    sink: &mut Sink<W>,
    counted: (&Progress<'_>, MessageKind),
) -> Result<(), End> {
    let all = BodyDecoder::new(Framing::UntilClose, 0);
    match pump(source, all.into(), sink, Coding::Plain, counted).await {
        Ok(()) => sink.shutdown().await.map_err(|_| End::Sink),
        Err(PumpError::NotTaken(_)) => Err(End::Sink),
        Err(PumpError::Malformed(_) | PumpError::CutShort) => Err(End::Source),
    }
}
