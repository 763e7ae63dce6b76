//! Moves a body from one side to the other.

use std::io;

use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};

use super::super::progress::{MessageKind, Progress};
use super::body::{Body, Coding};
use super::chunked::BodyPiece;
use super::malformed::Malformed;
use super::wire::{Sink, Source};

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
