//! The head of an HTTP/1 response, read from an application and written to a client.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, StatusCode, Version};

use super::body::{Framing, declared_framing, put_framing};
use super::fields::{Malformed, NO_FIELDS, Scanner, header_map, put_field, put_fields};
use super::hop::{ConnectionPersistence, put_connection, remove_from_response};

/// A response's head.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct ResponseHead {
    pub(super) status: StatusCode,
    /// The reason phrase, byte for byte.
    pub(super) reason: Bytes,
    /// The headers, without hop-by-hop headers except Upgrade.
    pub(super) headers: HeaderMap,
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
            scanner: Scanner::default(),
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
            Some(end) => parse_whole(&bytes[..end], method).map(Some),
            None => Ok(None),
        }
    }
}

fn parse_whole(text: &[u8], method: &Method) -> Result<ParsedResponse, Malformed> {
    let mut fields = NO_FIELDS;
    let mut split = httparse::Response::new(&mut fields);
    let parsed = split.parse(text);
    let (version, status, reason) = status_line(&split, text)?;
    let mut headers = header_map(parsed, split.headers, text)?;
    let declared = declared_framing(&mut headers, version)?;
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
    let persistence = match framing {
        Framing::UntilClose => ConnectionPersistence::Close,
        Framing::None | Framing::Length(_) | Framing::Chunked => persistence,
    };
    let reason = Bytes::copy_from_slice(reason);
    Ok(ParsedResponse {
        head: ResponseHead {
            status,
            reason,
            headers,
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
    put_fields(out, &head.headers);
    match (framing, head.headers.get(CONTENT_LENGTH)) {
        (Framing::None, Some(length)) => put_field(out, "content-length", length.as_bytes()),
        _ => put_framing(out, framing),
    }
    if !head.status.is_informational() || head.headers.contains_key(UPGRADE) {
        put_connection(out, &head.headers, version, persistence);
    }
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, method: Method) -> Result<ParsedResponse, Malformed> {
        let parsed = ResponseParser::new(4096).parse(text.as_bytes(), &method)?;
        Ok(parsed.expect("a whole head"))
    }

    #[test]
    fn a_body_ends_where_the_head_says() {
        for (status, field, method, framing) in [
            (
                "200 OK",
                "content-length: 5",
                Method::GET,
                Framing::Length(5),
            ),
            (
                "200 OK",
                "transfer-encoding: Chunked",
                Method::GET,
                Framing::Chunked,
            ),
            ("200 OK", "a: b", Method::GET, Framing::UntilClose),
            ("200 OK", "content-length: 5", Method::HEAD, Framing::None),
            ("200 OK", "a: b", Method::HEAD, Framing::None),
            (
                "204 No Content",
                "content-length: 5",
                Method::GET,
                Framing::None,
            ),
            (
                "304 Not Modified",
                "content-length: 5",
                Method::GET,
                Framing::None,
            ),
            ("100 Continue", "a: b", Method::POST, Framing::None),
            ("200", "content-length: 0", Method::GET, Framing::Length(0)),
        ] {
            let parsed = read(&format!("HTTP/1.1 {status}\r\n{field}\r\n\r\n"), method).unwrap();
            assert_eq!(parsed.framing, framing, "{status} {field}");
        }
    }

    #[test]
    fn a_body_up_to_the_end_of_the_connection_ends_the_connection() {
        let close = |head: &str| read(head, Method::GET).unwrap().persistence;
        assert_eq!(
            close("HTTP/1.1 200 OK\r\n\r\n"),
            ConnectionPersistence::Close
        );
        assert_eq!(
            close("HTTP/1.1 204 x\r\n\r\n"),
            ConnectionPersistence::KeepAlive
        );
        assert_eq!(
            close("HTTP/1.1 204 x\r\nConnection: close\r\n\r\n"),
            ConnectionPersistence::Close
        );
        assert_eq!(
            close("HTTP/1.0 204 x\r\n\r\n"),
            ConnectionPersistence::Close
        );
        let kept = "HTTP/1.0 204 x\r\nConnection: Keep-Alive\r\n\r\n";
        assert_eq!(close(kept), ConnectionPersistence::KeepAlive);
    }

    #[test]
    fn a_reason_is_kept_byte_for_byte() {
        for reason in ["", "OK", " a  b ", "\t", "d\u{e9}j\u{e0} vu"] {
            let parsed = read(&format!("HTTP/1.1 200 {reason}\r\n\r\n"), Method::GET).unwrap();
            assert_eq!(parsed.head.reason, reason);
        }
    }

    #[test]
    fn a_malformed_response_is_refused() {
        for (head, expected) in [
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked",
                Malformed::TwoLengths,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5",
                Malformed::ContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked",
                Malformed::TransferEncoding,
            ),
            (
                "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked",
                Malformed::TransferEncoding,
            ),
            ("HTTP/2.0 200 OK", Malformed::Version),
            ("HTTP/1.1 20 OK", Malformed::StatusLine),
            ("HTTP/1.1 2000", Malformed::StatusLine),
            ("HTTP/1.1  200", Malformed::StatusLine),
            ("ICY 200 OK", Malformed::Version),
            ("HTTP/1.1 200 OK\r\na : b", Malformed::Field),
            ("HTTP/1.1 200 OK\r\na: b\r\n c", Malformed::Field),
            ("HTTP/1.1 200 OK\r\na: b\n", Malformed::ControlCharacter),
        ] {
            let refused = read(&format!("{head}\r\n\r\n"), Method::GET);
            assert_eq!(refused.map(|_| ()), Err(expected), "{head:?}");
        }
    }
}
