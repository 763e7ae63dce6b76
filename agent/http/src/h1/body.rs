//! Where a message's body ends (RFC 9112, section 6.3), and the decoding of its bytes.

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Version};

use super::super::downstream::Downstream;
use super::super::gate::{BodyError, JudgedBody};
use super::super::head::{RequestHead, take_expect};
use super::chunked::{BodyPiece, ChunkDecoder};
use super::fields::{Fields, Malformed, put_field, single_value};
use super::spelling::Spelling;
use super::wire::BufferedClient;

/// How the end of a body is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// There is no body.
    None,
    /// After this many bytes.
    Length(u64),
    /// By the last chunk.
    Chunked,
    /// By the end of the connection; only in responses.
    UntilClose,
}

/// Who sends a message. A client may want the application to read another message than the one that was
/// judged; an application can only spoil its own responses, over a connection that carries requests of one
/// client's connection. So old forms that have one reading are taken from applications, and written anew
/// in the usual form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sender {
    Client,
    Application,
}

/// Returns the framing that the headers declare; `None` if they declare none. The headers are
/// rewritten in their canonical form.
///
/// Chunks in an HTTP/1.0 request are refused: an application may ignore the coding and read the body as
/// the next request. After such a response, the connection has to end (RFC 9112, section 6.1).
///
/// # Errors
/// [`Malformed`] if they could be read in two ways.
pub(super) fn declared_framing(
    headers: &mut HeaderMap,
    version: Version,
    sender: Sender,
) -> Result<Option<Framing>, Malformed> {
    let length = single_value(headers, CONTENT_LENGTH, Malformed::ContentLength)?;
    let encoding = single_value(headers, TRANSFER_ENCODING, Malformed::TransferEncoding)?;
    match (length, encoding) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Malformed::TwoLengths),
        (Some(length), None) => {
            let length = decimal(length.as_bytes()).ok_or(Malformed::ContentLength)?;
            headers.insert(CONTENT_LENGTH, length.into());
            Ok(Some(Framing::Length(length)))
        }
        (None, Some(encoding)) => {
            let is_chunked = encoding.as_bytes().eq_ignore_ascii_case(b"chunked");
            let may_be_chunked = version == Version::HTTP_11 || sender == Sender::Application;
            if !is_chunked || !may_be_chunked {
                return Err(Malformed::TransferEncoding);
            }
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            Ok(Some(Framing::Chunked))
        }
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

pub(super) fn put_framing(out: &mut BytesMut, framing: Framing, spelling: &Spelling) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => {
            let name = spelling.spell("content-length");
            put_field(out, name, length.to_string().as_bytes());
        }
        Framing::Chunked => put_field(out, spelling.spell("transfer-encoding"), b"chunked"),
    }
}

/// Finds the end of a body in the bytes that are read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum BodyDecoder {
    /// This many bytes are left.
    Length(u64),
    /// In chunks.
    Chunked(ChunkDecoder),
    /// Up to the end of the connection.
    UntilClose,
}

impl BodyDecoder {
    pub(super) fn new(framing: Framing, max_trailers: usize, sender: Sender) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(ChunkDecoder::new(max_trailers, sender)),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// The next piece, taken from the beginning of `input`.
    ///
    /// # Errors
    /// [`Malformed`].
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<BodyPiece, Malformed> {
        match self {
            Self::Length(0) => Ok(BodyPiece::End(Fields::default())),
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

    /// Whether the end of the connection is the regular end of the body.
    pub(super) fn ends_with_connection(&self) -> bool {
        matches!(self, Self::UntilClose)
    }
}

/// A body that may have been read in part before it is passed on.
#[derive(Debug)]
pub(super) struct Body {
    held: Bytes,
    rest: BodyDecoder,
    /// The trailers, once the end has been read.
    end: Option<Fields>,
}

impl Body {
    /// The next piece: bytes that were put back come first.
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

    /// The next piece that has not been read yet.
    ///
    /// # Errors
    /// [`Malformed`].
    pub(super) fn decode_ahead(&mut self, input: &mut BytesMut) -> Result<BodyPiece, Malformed> {
        if self.end.is_some() {
            return Ok(BodyPiece::End(Fields::default()));
        }
        let piece = self.rest.decode(input)?;
        if let BodyPiece::End(trailers) = &piece {
            self.end = Some(trailers.clone());
        }
        Ok(piece)
    }

    /// Puts bytes back, to be passed on first.
    pub(super) fn put_back(&mut self, read: Bytes) {
        self.held = read;
    }

    /// Whether the end has been read.
    pub(super) fn is_read(&self) -> bool {
        self.end.is_some()
    }

    /// Whether the end of the connection is the regular end of the body.
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
    /// Unchanged.
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

/// The interim response that makes a client send its body.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A client's body, for the gate to read.
pub(super) struct ReadableBody<'a, D> {
    pub(super) client: &'a mut BufferedClient<D>,
    pub(super) body: &'a mut Body,
    pub(super) framing: Framing,
}

impl From<Malformed> for BodyError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed {
            status: malformed.status(),
            problem: malformed.to_string(),
        }
    }
}

impl<D: Downstream> JudgedBody for ReadableBody<'_, D> {
    fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        }
    }

    async fn next(&mut self, head: &mut RequestHead) -> Result<Option<Bytes>, BodyError> {
        let BufferedClient { source, sink, .. } = &mut *self.client;
        loop {
            match self.body.decode_ahead(&mut source.buffer)? {
                BodyPiece::Data(data) => return Ok(Some(data)),
                BodyPiece::End(_) => return Ok(None),
                BodyPiece::NeedsMore => {}
            }
            if take_expect(head) {
                sink.pending.extend_from_slice(CONTINUE);
            }
            sink.flush().await.map_err(|_| BodyError::CutShort)?;
            match source.fill().await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Err(BodyError::CutShort),
            }
        }
    }

    fn put_back(&mut self, read: Bytes) {
        self.body.put_back(read);
    }
}
