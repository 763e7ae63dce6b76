//! Bodies as they come in and as they go out.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::chunked::{BodyPiece, ChunkDecoder};
use super::framing::Framing;
use super::malformed::Malformed;

/// Finds a body's end in what is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum BodyDecoder {
    /// So many bytes are to come.
    Length(u64),
    /// In chunks.
    Chunked(ChunkDecoder),
    /// Up to the end.
    UntilClose,
}

impl BodyDecoder {
    pub(super) fn new(framing: Framing, most_trailers: usize) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(ChunkDecoder::new(most_trailers)),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// The next piece, taken from the beginning of `input`.
    ///
    /// # Errors
    /// [`Malformed`].
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<BodyPiece, Malformed> {
        match self {
            Self::Length(0) => Ok(BodyPiece::End(HeaderMap::new())),
            Self::Chunked(decoder) => decoder.decode(input),
            Self::Length(_) | Self::UntilClose if input.is_empty() => Ok(BodyPiece::NeedsMore),
            Self::Length(rest) => {
                let most = usize::try_from(*rest).unwrap_or(usize::MAX);
                let data = input.split_to(most.min(input.len())).freeze();
                *rest -= data.len() as u64;
                Ok(BodyPiece::Data(data))
            }
            Self::UntilClose => Ok(BodyPiece::Data(input.split().freeze())),
        }
    }

    /// Whether the end of the connection is the end of the body, and not a break.
    pub(super) fn ends_with_connection(&self) -> bool {
        matches!(self, Self::UntilClose)
    }
}

/// A body of which some may have been read before it is passed on.
#[derive(Debug)]
pub(super) struct Body {
    held: Bytes,
    rest: BodyDecoder,
    /// Its trailers, once its end was read.
    end: Option<HeaderMap>,
}

impl Body {
    /// The next piece: what was put back, then what comes.
    ///
    /// # Errors
    /// [`Malformed`].
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<BodyPiece, Malformed> {
        if !self.held.is_empty() {
            return Ok(BodyPiece::Data(std::mem::take(&mut self.held)));
        }
        match &self.end {
            Some(trailers) => Ok(BodyPiece::End(trailers.clone())),
            None => self.decode_ahead(input),
        }
    }

    /// The next piece of those that were not read yet.
    ///
    /// # Errors
    /// [`Malformed`].
    pub(super) fn decode_ahead(&mut self, input: &mut BytesMut) -> Result<BodyPiece, Malformed> {
        if self.end.is_some() {
            return Ok(BodyPiece::End(HeaderMap::new()));
        }
        let piece = self.rest.decode(input)?;
        if let BodyPiece::End(trailers) = &piece {
            self.end = Some(trailers.clone());
        }
        Ok(piece)
    }

    /// Has this come first.
    pub(super) fn put_back(&mut self, read: Bytes) {
        self.held = read;
    }

    /// Whether its end was read.
    pub(super) fn is_read(&self) -> bool {
        self.end.is_some()
    }

    /// Whether the end of the connection is the end of the body, and not a break.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.rest.ends_with_connection()
    }
}

impl From<BodyDecoder> for Body {
    fn from(rest: BodyDecoder) -> Self {
        Self {
            held: Bytes::new(),
            rest,
            end: None,
        }
    }
}

/// How a body is sent on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Coding {
    /// As it is.
    Plain,
    /// In chunks.
    Chunked,
}

impl From<Framing> for Coding {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::Chunked => Self::Chunked,
            Framing::None | Framing::Length(_) | Framing::UntilClose => Self::Plain,
        }
    }
}
