//! Buffered sides of a connection.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::io::poll_read_buf;

use super::body::Coding;

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
