//! The head of an HTTP/1 response, read from an application and written to a client.
//!
//! Old forms that have one reading are taken, since the head is written anew: LF for CR LF, folded
//! lines, parameters in Connection, chunks in HTTP/1.0.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, StatusCode, Version};

use super::body::{Framing, Sender, declared_framing, put_framing};
use super::fields::{Fields, Malformed, NO_FIELDS, Scanner, put_field, put_fields, read_fields};
use super::hop::{ConnectionPersistence, KEEP_ALIVE, put_connection, remove_from_response};
use super::spelling::Spelling;

/// The line end.
const CRLF: &[u8] = b"\r\n";

/// A response's head.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct ResponseHead {
    pub(super) status: StatusCode,
    /// The reason phrase, byte for byte.
    pub(super) reason: Bytes,
    /// The headers, without hop-by-hop headers except Upgrade and Keep-Alive.
    pub(super) headers: HeaderMap,
    /// How the application wrote their names.
    pub(super) spelling: Spelling,
}

/// A response's head, and what follows from it for the body and the connection.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct ParsedResponse {
    pub(super) head: ResponseHead,
    pub(super) framing: Framing,
    /// Whether the application accepts another request afterwards.
    pub(super) persistence: ConnectionPersistence,
    /// The length of the head in bytes.
    pub(super) consumed: usize,
}

/// Reads one response's head, in however many parts its bytes arrive.
#[derive(Clone, Debug)]
pub(super) struct ResponseParser {
    scanner: Scanner,
    most: usize,
}

impl ResponseParser {
    /// A parser for a head of at most `most` bytes.
    pub(super) fn new(most: usize) -> Self {
        Self {
            scanner: Scanner::of_response(),
            most,
        }
    }

    /// The head that `bytes` begin with, in response to a request of `method`; `None` until all of it
    /// has arrived.
    ///
    /// # Errors
    /// [`Malformed`].
    pub(super) fn parse(
        &mut self,
        bytes: &[u8],
        method: &Method,
    ) -> Result<Option<ParsedResponse>, Malformed> {
        match self.scanner.scan(bytes, self.most)? {
            Some(end) => {
                let parsed = parse_whole(&in_current_form(&bytes[..end])?, method)?;
                let consumed = end;
                Ok(Some(ParsedResponse { consumed, ..parsed }))
            }
            None => Ok(None),
        }
    }
}

/// Returns a head with CR LF for LF, and a space for each fold (RFC 9112, sections 2.2 and 5.2). It is at
/// most twice as long.
///
/// # Errors
/// [`Malformed::Field`] for a fold of the status line, and for a line of blanks: some readers take it for
/// the empty line.
fn in_current_form(text: &[u8]) -> Result<Cow<'_, [u8]>, Malformed> {
    let lines = || text.split_inclusive(|&byte| byte == b'\n');
    let is_fold = |line: &[u8]| matches!(line.first(), Some(b' ' | b'\t'));
    if lines().all(|line| line.ends_with(b"\r\n") && !is_fold(line)) {
        return Ok(Cow::Borrowed(text));
    }
    let mut current = Vec::with_capacity(2 * text.len());
    for (index, line) in lines().enumerate() {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut line = line.strip_suffix(b"\r").unwrap_or(line);
        if is_fold(line) {
            line = line.trim_ascii();
            if index < 2 || line.is_empty() {
                return Err(Malformed::Field);
            }
            current.truncate(current.len() - CRLF.len());
            current.push(b' ');
        }
        current.extend_from_slice(line);
        current.extend_from_slice(CRLF);
    }
    Ok(Cow::Owned(current))
}

fn parse_whole(text: &[u8], method: &Method) -> Result<ParsedResponse, Malformed> {
    let mut fields = NO_FIELDS;
    let mut split = httparse::Response::new(&mut fields);
    let parsed = split.parse(text);
    let (version, status, reason) = status_line(&split, text)?;
    let Fields {
        mut headers,
        spelling,
    } = read_fields(parsed, split.headers, text)?;
    let declared = declared_framing(&mut headers, version, Sender::Application)?;
    let persistence = remove_from_response(&mut headers, version)?;
    headers.remove(TRANSFER_ENCODING);
    let has_no_length = status.is_informational() || status == StatusCode::NO_CONTENT;
    if has_no_length {
        headers.remove(CONTENT_LENGTH);
    }
    let has_no_body =
        has_no_length || status == StatusCode::NOT_MODIFIED || *method == Method::HEAD;
    let framing = match declared {
        _ if has_no_body => Framing::None,
        Some(framing) => framing,
        None => Framing::UntilClose,
    };
    let persistence = match (framing, version) {
        (Framing::UntilClose, _) | (Framing::Chunked, Version::HTTP_10) => {
            ConnectionPersistence::Close
        }
        (Framing::None | Framing::Length(_) | Framing::Chunked, _) => persistence,
    };
    let reason = Bytes::copy_from_slice(reason);
    Ok(ParsedResponse {
        head: ResponseHead {
            status,
            reason,
            headers,
            spelling,
        },
        framing,
        persistence,
        consumed: text.len(),
    })
}

/// Reads the parts that httparse has split the status line into. They are `None` from the first part
/// on that it refused.
fn status_line<'a>(
    split: &httparse::Response<'_, '_>,
    text: &'a [u8],
) -> Result<(Version, StatusCode, &'a [u8]), Malformed> {
    let line = text.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let version = match line.get(..9) {
        Some(b"HTTP/1.1 ") => Version::HTTP_11,
        Some(b"HTTP/1.0 ") => Version::HTTP_10,
        Some(_) => return Err(Malformed::Version),
        None => return Err(Malformed::StatusLine),
    };
    let (Some(code), Some(_)) = (split.code, split.reason) else {
        return Err(Malformed::StatusLine);
    };
    let status = StatusCode::from_u16(code).map_err(|_| Malformed::StatusLine)?;
    // httparse returns an empty reason if it is not ASCII. It is passed on unchanged.
    let reason = line.get("HTTP/1.1 200 ".len()..).unwrap_or_default();
    Ok((version, status, reason))
}

/// Writes a response's head to a client that speaks `version`. If there is no body, the head's
/// Content-Length is kept: it says how long a body would be.
pub(super) fn write_response(
    head: &ResponseHead,
    framing: Framing,
    persistence: ConnectionPersistence,
    version: Version,
    out: &mut BytesMut,
) {
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(head.status.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(&head.reason);
    out.put_slice(b"\r\n");
    // Keep-Alive says how long the application keeps its connection, and the client's lasts as long.
    let is_last = persistence == ConnectionPersistence::Close;
    let spelling = &head.spelling;
    let fields = head.headers.iter();
    put_fields(
        out,
        fields.filter(|(name, _)| !is_last || *name != KEEP_ALIVE),
        spelling,
    );
    match (framing, head.headers.get(CONTENT_LENGTH)) {
        (Framing::None, Some(length)) => {
            put_field(out, spelling.spell("content-length"), length.as_bytes());
        }
        _ => put_framing(out, framing, spelling),
    }
    if !head.status.is_informational() || head.headers.contains_key(UPGRADE) {
        put_connection(out, &head.headers, version, persistence, spelling);
    }
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
