//! The text of heads and trailers: where it ends, its header lines, and what makes it malformed.
//!
//! [`Scanner`] comes first, and refuses what httparse would accept: LF without CR (which only an
//! application's response may have), and empty lines before the head. Then httparse splits the text. It
//! refuses folded lines and white space around names itself, which tests check.

use bytes::{BufMut, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};
use httparse::Status;

use super::spelling::Spelling;

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

/// The header lines of a head, or trailers.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Fields {
    /// The headers. Names are in lower case; lines of the same name keep their order.
    pub(super) headers: HeaderMap,
    /// The names as they were written.
    pub(super) spelling: Spelling,
}

/// Reads scanned header lines, up to and including the empty line after them.
///
/// # Errors
/// [`Malformed::Field`] for a folded line, or white space in or after a name;
/// [`Malformed::TooLarge`].
pub(super) fn parse_fields(text: &[u8]) -> Result<Fields, Malformed> {
    let mut fields = NO_FIELDS;
    match httparse::parse_headers(text, &mut fields) {
        Ok(Status::Complete((length, fields))) => {
            read_fields(Ok(Status::Complete(length)), fields, text)
        }
        refused => read_fields(refused.map(|_| Status::Partial), &fields, text),
    }
}

/// Returns the header lines that httparse has split `text` into.
///
/// # Errors
/// As [`parse_fields`].
pub(super) fn read_fields(
    parsed: httparse::Result<usize>,
    fields: &[httparse::Header<'_>],
    text: &[u8],
) -> Result<Fields, Malformed> {
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
    let spelling = Spelling::of(fields.iter().map(|field| field.name));
    Ok(Fields { headers, spelling })
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

/// Headers that are written from the framing and the connection's state, not from the head.
const OURS: [HeaderName; 4] = [HOST, CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH];

pub(super) fn put_fields<'a>(
    out: &mut BytesMut,
    headers: impl IntoIterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    spelling: &Spelling,
) {
    for (name, value) in headers {
        if !OURS.contains(name) {
            put_field(out, spelling.spell(name.as_str()), value.as_bytes());
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
        parse_fields(text.as_bytes()).map(|fields| fields.headers)
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
}
