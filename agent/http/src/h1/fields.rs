//! The text of heads and trailers: where it ends, its header lines, and what makes it malformed.
//!
//! [`Scanner`] comes first, and refuses what httparse would accept: LF without CR (which only an
//! application's response may have), and empty lines before the head. Then httparse splits the text. It
//! refuses folded lines and white space around names itself, which tests check.

use bytes::{BufMut, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode, header};
use httparse::Status;

use ambit_model::folded;

/// What is wrong with a message. Bytes that two readers could understand differently are refused, and
/// never repaired.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// A control character other than tab, or CR or LF outside of CR LF.
    #[error("a head contains a control character, or CR or LF outside of CR LF")]
    ControlCharacter,
    /// The request line is not a method, a target and a version, separated by single spaces.
    #[error("the request line is not METHOD SP TARGET SP VERSION")]
    RequestLine,
    /// The method is not a token in upper case.
    #[error("the method is not a token in upper case")]
    Method,
    /// CONNECT, which asks for a tunnel.
    #[error("CONNECT is not supported")]
    Connect,
    /// The target is neither a path, nor an http or https URL, nor the `*` of OPTIONS.
    #[error("the request's target is neither a path nor an http or https URL")]
    Target,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("the version is not HTTP/1.1 or HTTP/1.0")]
    Version,
    /// The status line is malformed.
    #[error("the status line is not VERSION SP STATUS SP REASON")]
    StatusLine,
    /// Host is missing, repeated, not a host, or not the target's.
    #[error("Host is missing, repeated, not a host, or differs from the target's")]
    Host,
    /// A header line is not a name, a colon and a value: white space in the name, a folded line.
    #[error("a header line is not NAME:VALUE")]
    Field,
    /// Content-Length is repeated or not a number.
    #[error("Content-Length is repeated or not a number")]
    ContentLength,
    /// Transfer-Encoding is not `chunked`, or an HTTP/1.0 request has one.
    #[error("Transfer-Encoding is not chunked, or an HTTP/1.0 request has one")]
    TransferEncoding,
    /// Both Content-Length and Transfer-Encoding are present.
    #[error("both Content-Length and Transfer-Encoding are present")]
    TwoLengths,
    /// Connection is not a list of tokens, or names an end-to-end header.
    #[error("Connection is not a list of names, or names an end-to-end header")]
    Connection,
    /// Upgrade lists too many protocols.
    #[error("Upgrade lists too many protocols")]
    Upgrade,
    /// The size of a chunk, its extension, or a line end around it is malformed.
    #[error("a chunk of the body is malformed")]
    Chunk,
    /// The head or the trailers are too long, or have too many lines.
    #[error("a head or trailers are too long, or have too many lines")]
    TooLarge,
}

impl Malformed {
    /// The status of the response to such a request.
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::ControlCharacter
            | Self::RequestLine
            | Self::Method
            | Self::Target
            | Self::Version
            | Self::StatusLine
            | Self::Host
            | Self::Field
            | Self::ContentLength
            | Self::TransferEncoding
            | Self::TwoLengths
            | Self::Connection
            | Self::Upgrade
            | Self::Chunk => StatusCode::BAD_REQUEST,
        }
    }
}

/// What may end a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum LineEnd {
    #[default]
    CrLf,
    /// CR LF, or LF by itself.
    Lf,
}

/// Finds the end of a head or of trailers: lines, up to an empty one. It looks at each byte once, in
/// however many parts they arrive, and refuses a byte that no head may contain as soon as it sees it.
/// The text that it finds has no control characters but tabs and the line ends. By default, a line ends
/// in CR LF only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Scanner {
    line_end: LineEnd,
    scanned: usize,
    line: usize,
    after_cr: bool,
}

impl Scanner {
    /// A scanner for the head of a response, whose lines may end in LF by itself.
    pub(super) fn of_response() -> Self {
        Self {
            line_end: LineEnd::Lf,
            ..Self::default()
        }
    }

    /// The length up to and including the empty line; `None` until it has arrived. `bytes` begin at
    /// the same byte in each call.
    ///
    /// # Errors
    /// [`Malformed::ControlCharacter`], and [`Malformed::TooLarge`] if the end is not within the first
    /// `most` bytes.
    pub(super) fn scan(&mut self, bytes: &[u8], most: usize) -> Result<Option<usize>, Malformed> {
        while let Some(&byte) = bytes.get(self.scanned) {
            if self.scanned >= most {
                return Err(Malformed::TooLarge);
            }
            if self.step(byte)? {
                return Ok(Some(self.scanned));
            }
        }
        Ok(None)
    }

    /// Takes a byte, and returns whether it ends an empty line.
    fn step(&mut self, byte: u8) -> Result<bool, Malformed> {
        self.scanned += 1;
        if self.after_cr {
            if byte != b'\n' {
                return Err(Malformed::ControlCharacter);
            }
            self.after_cr = false;
            return Ok(std::mem::take(&mut self.line) == 0);
        }
        match byte {
            b'\r' => self.after_cr = true,
            b'\n' if self.line_end == LineEnd::Lf => {
                return Ok(std::mem::take(&mut self.line) == 0);
            }
            b'\t' | b' '..=b'~' | 0x80.. => self.line += 1,
            _ => return Err(Malformed::ControlCharacter),
        }
        Ok(false)
    }
}

/// The most header lines of a head or of trailers.
pub(crate) const MOST_FIELDS: usize = 100;

/// The array that httparse fills: one element for each header line that is allowed.
pub(super) const NO_FIELDS: [httparse::Header<'_>; MOST_FIELDS] =
    [httparse::EMPTY_HEADER; MOST_FIELDS];

/// Reads scanned header lines, up to and including the empty line after them.
///
/// # Errors
/// [`Malformed::Field`] for a folded line, or white space in or after a name;
/// [`Malformed::TooLarge`].
pub(super) fn parse_fields(text: &[u8]) -> Result<HeaderMap, Malformed> {
    let mut fields = NO_FIELDS;
    match httparse::parse_headers(text, &mut fields) {
        Ok(Status::Complete((length, fields))) => {
            header_map(Ok(Status::Complete(length)), fields, text)
        }
        refused => header_map(refused.map(|_| Status::Partial), &fields, text),
    }
}

/// Returns the headers that httparse has split `text` into. Names become lower case; lines of the same
/// name keep their order.
///
/// # Errors
/// As [`parse_fields`].
pub(super) fn header_map(
    parsed: httparse::Result<usize>,
    fields: &[httparse::Header<'_>],
    text: &[u8],
) -> Result<HeaderMap, Malformed> {
    // The scan and httparse have to agree where the head ends.
    if parsed != Ok(Status::Complete(text.len())) {
        // If all elements are filled, httparse refused the line after them: there are too many lines,
        // whatever that line says.
        let is_full =
            fields.len() == MOST_FIELDS && fields.iter().all(|field| !field.name.is_empty());
        return Err(if is_full {
            Malformed::TooLarge
        } else {
            Malformed::Field
        });
    }
    let mut headers = HeaderMap::new();
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed::Field)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| Malformed::Field)?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// The value of a header that may be there once; `None` if it is absent.
///
/// # Errors
/// `malformed` if it is repeated.
pub(super) fn single_value(
    fields: &HeaderMap,
    name: HeaderName,
    malformed: Malformed,
) -> Result<Option<&HeaderValue>, Malformed> {
    let mut values = fields.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(malformed),
    }
}

/// Removes what trailers must not contain: headers about framing, routing, authentication or the
/// content's form (RFC 9110, section 6.5.1), and headers that say who the caller is.
pub(crate) fn retain_trailers(mut trailers: HeaderMap) -> HeaderMap {
    let names: Vec<HeaderName> = trailers.keys().cloned().collect();
    for name in names {
        if !may_trail(&name) {
            trailers.remove(name);
        }
    }
    trailers
}

fn may_trail(name: &HeaderName) -> bool {
    const NEVER: [HeaderName; 24] = [
        header::HOST,
        header::TRANSFER_ENCODING,
        header::TRAILER,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::EXPECT,
        header::MAX_FORWARDS,
        header::CACHE_CONTROL,
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::WWW_AUTHENTICATE,
        header::PROXY_AUTHENTICATE,
        header::COOKIE,
        header::SET_COOKIE,
        header::FORWARDED,
        header::VIA,
        header::ORIGIN,
        header::REFERER,
        header::RANGE,
        header::LOCATION,
        header::RETRY_AFTER,
        header::VARY,
        header::DATE,
    ];
    const NEVER_NAMED: [&str; 4] = [
        "keep-alive",
        "proxy-connection",
        "http2-settings",
        "x-real-ip",
    ];
    const NEVER_BEGUN: [&str; 3] = ["content-", "x-forwarded-", "if-"];
    // The name as an application may see it: `content_type` for `content-type`.
    let text = folded(name.as_str());
    let named = NEVER.iter().any(|never| *never == *text) || NEVER_NAMED.contains(&&*text);
    !named && !NEVER_BEGUN.iter().any(|begin| text.starts_with(begin))
}

/// Headers that are written from the framing and the connection's state, not from the head.
const OURS: [HeaderName; 4] = [HOST, CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH];

pub(super) fn put_fields<'a>(
    out: &mut BytesMut,
    headers: impl IntoIterator<Item = (&'a HeaderName, &'a HeaderValue)>,
) {
    for (name, value) in headers {
        if !OURS.contains(name) {
            put_field(out, name.as_str(), value.as_bytes());
        }
    }
}

pub(super) fn put_field(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<HeaderMap, Malformed> {
        parse_fields(text.as_bytes())
    }

    #[test]
    fn names_become_lower_case_values_are_trimmed_and_order_is_kept() {
        let fields = read("X-Role: \t user \t\r\nEmpty:\r\nx-role:admin\r\n\r\n").unwrap();
        let roles: Vec<_> = fields.get_all("x-role").into_iter().collect();
        assert_eq!(roles, ["user", "admin"]);
        assert_eq!(fields["empty"], "");
        assert_eq!(read("\r\n").unwrap().len(), 0);
    }

    #[test]
    fn a_folded_line_is_refused() {
        assert_eq!(read("a: b\r\n c\r\n\r\n"), Err(Malformed::Field));
        assert_eq!(read("a: b\r\n\tc: d\r\n\r\n"), Err(Malformed::Field));
        assert_eq!(read(" a: b\r\n\r\n"), Err(Malformed::Field));
    }

    #[test]
    fn white_space_and_other_non_token_characters_in_a_name_are_refused() {
        for text in [
            "a : b",
            "a\t: b",
            "a b: c",
            ": b",
            "no colon",
            "a(b): c",
            "\u{e9}: c",
        ] {
            assert_eq!(
                read(&format!("{text}\r\n\r\n")),
                Err(Malformed::Field),
                "{text}"
            );
        }
    }

    #[test]
    fn more_than_a_hundred_lines_are_refused() {
        let text = |count: usize| "a: b\r\n".repeat(count) + "\r\n";
        assert_eq!(read(&text(MOST_FIELDS)).unwrap().len(), MOST_FIELDS);
        assert_eq!(read(&text(MOST_FIELDS + 1)), Err(Malformed::TooLarge));
    }

    #[test]
    fn trailers_cannot_contain_headers_that_decisions_rest_on() {
        let sent = "content-length: 5\r\nhost: a\r\nauthorization: b\r\nx-forwarded-for: c\r\n\
                    content_type: e\r\nx_forwarded_for: c\r\nx.real.ip: c\r\n\
                    transfer-encoding: chunked\r\ncookie: d\r\ngrpc-status: 0\r\n\r\n";
        let kept = retain_trailers(read(sent).unwrap());
        assert_eq!(kept.len(), 1);
        assert_eq!(kept["grpc-status"], "0");
    }
}
