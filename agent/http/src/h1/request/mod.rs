//! The head of an HTTP/1 request, read into a [`RequestHead`] and written from one. Heads that two
//! readers could understand differently are refused.

use bytes::{BufMut, BytesMut};
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Version};

use super::super::head::{RequestHead, is_authority, is_target};
use super::super::sniff::LONGEST_METHOD;
use super::body::{Framing, Sender, declared_framing, put_framing};
use super::fields::{
    Fields, Malformed, NO_FIELDS, Scanner, put_field, put_fields, read_fields, single_value,
};
use super::hop::{ConnectionPersistence, put_connection, remove_from_request};
use super::spelling::Spelling;

/// A request's head, and what follows from it for the body and the connection.
#[derive(Clone, PartialEq, Debug)]
pub struct ParsedRequest {
    /// The head that is judged.
    pub head: RequestHead,
    /// How the client wrote the names of the headers.
    pub spelling: Spelling,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the client may send another request afterwards.
    pub persistence: ConnectionPersistence,
    /// The length of the head in bytes.
    pub consumed: usize,
}

/// Reads one request's head, in however many parts its bytes arrive.
#[derive(Clone, Debug)]
pub struct HeadParser {
    scanner: Scanner,
    most: usize,
}

impl HeadParser {
    /// A parser for a head of at most `most` bytes.
    pub fn new(most: usize) -> Self {
        Self {
            scanner: Scanner::default(),
            most,
        }
    }

    /// The head that `bytes` begin with; `None` until all of it has arrived. `bytes` begin at the same
    /// byte in each call.
    ///
    /// # Errors
    /// [`Malformed`], as soon as the bytes show it.
    pub fn parse(&mut self, bytes: &[u8]) -> Result<Option<ParsedRequest>, Malformed> {
        match self.scanner.scan(bytes, self.most)? {
            Some(end) => parse_whole(&bytes[..end]).map(Some),
            None => Ok(None),
        }
    }
}

fn parse_whole(text: &[u8]) -> Result<ParsedRequest, Malformed> {
    check_request_line(text)?;
    let mut fields = NO_FIELDS;
    let mut split = httparse::Request::new(&mut fields);
    let parsed = split.parse(text);
    let line = RequestLine::read(&split)?;
    let Fields {
        mut headers,
        spelling,
    } = read_fields(parsed, split.headers, text)?;
    let authority = authority(&line, &mut headers)?;
    let declared = declared_framing(&mut headers, line.version, Sender::Client)?;
    let framing = declared.unwrap_or(Framing::None);
    let persistence = remove_from_request(&mut headers, line.version)?;
    let head = RequestHead {
        method: line.method,
        scheme: None,
        authority,
        target: line.target,
        headers,
        version: line.version,
    };
    Ok(ParsedRequest {
        head,
        spelling,
        framing,
        persistence,
        consumed: text.len(),
    })
}

struct RequestLine {
    method: Method,
    /// In origin form, or `*`.
    target: String,
    /// The authority of a target in absolute form.
    authority: Option<String>,
    version: Version,
}

/// Ensures that the request line is three words, separated by single spaces, and that the last is a
/// version. An empty line, which httparse would skip, is refused.
fn check_request_line(text: &[u8]) -> Result<(), Malformed> {
    let line = text.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ');
    match (words.nth(2), words.next()) {
        (Some(b"HTTP/1.1" | b"HTTP/1.0"), None) => Ok(()),
        (Some(_), None) => Err(Malformed::Version),
        _ => Err(Malformed::RequestLine),
    }
}

impl RequestLine {
    /// Reads the words that httparse has split. They are `None` from the first word on that it
    /// refused.
    fn read(split: &httparse::Request<'_, '_>) -> Result<Self, Malformed> {
        let method = parse_method(split.method.ok_or(Malformed::Method)?)?;
        if method == Method::CONNECT {
            return Err(Malformed::Connect);
        }
        let target = split.path.ok_or(Malformed::Target)?;
        let version = match split.version {
            Some(0) => Version::HTTP_10,
            Some(1) => Version::HTTP_11,
            _ => return Err(Malformed::Version),
        };
        let (target, authority) = parse_target(&method, target)?;
        Ok(Self {
            method,
            target,
            authority,
            version,
        })
    }
}

/// Reads a method, which httparse has found to be a token.
fn parse_method(word: &str) -> Result<Method, Malformed> {
    if word.len() > LONGEST_METHOD || word.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Err(Malformed::Method);
    }
    Method::from_bytes(word.as_bytes()).map_err(|_| Malformed::Method)
}

/// Returns the target in origin form, and the authority that it names.
fn parse_target(method: &Method, text: &str) -> Result<(String, Option<String>), Malformed> {
    if !is_target(text) {
        return Err(Malformed::Target);
    }
    if text.starts_with('/') {
        return Ok((text.to_owned(), None));
    }
    if text == "*" && *method == Method::OPTIONS {
        return Ok((text.to_owned(), None));
    }
    let (scheme, rest) = text.split_once("://").ok_or(Malformed::Target)?;
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return Err(Malformed::Target);
    }
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !is_authority(authority) {
        return Err(Malformed::Host);
    }
    let target = match path {
        "" if *method == Method::OPTIONS => "*".to_owned(),
        _ if path.starts_with('/') => path.to_owned(),
        _ => format!("/{path}"),
    };
    Ok((target, Some(authority.to_owned())))
}

/// Returns the authority of the request: the target's or Host, which must not differ. Removes Host. It is
/// empty if Host is (RFC 9112, section 3.2): policies judge it, and the application gets it, as that.
fn authority(line: &RequestLine, headers: &mut HeaderMap) -> Result<String, Malformed> {
    let host = single_value(headers, HOST, Malformed::Host)?.map(HeaderValue::as_bytes);
    let host = host.map(|value| std::str::from_utf8(value).ok());
    let host = match host {
        Some(Some(host)) if host.is_empty() || is_authority(host) => Some(host.to_owned()),
        Some(_) => return Err(Malformed::Host),
        None if line.version == Version::HTTP_11 => return Err(Malformed::Host),
        None => None,
    };
    headers.remove(HOST);
    match (&line.authority, host) {
        (Some(own), Some(host)) if !own.eq_ignore_ascii_case(&host) => Err(Malformed::Host),
        (Some(own), _) => Ok(own.clone()),
        (None, host) => Ok(host.unwrap_or_default()),
    }
}

/// The gate has changed the head into one that cannot be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the request's target or authority cannot be written into a request")]
pub struct Unwritable;

/// Writes a request's head, with the names of headers in this spelling.
///
/// # Errors
/// [`Unwritable`]. Nothing is written then.
pub fn write_request(
    head: &RequestHead,
    spelling: &Spelling,
    framing: Framing,
    persistence: ConnectionPersistence,
    out: &mut BytesMut,
) -> Result<(), Unwritable> {
    let is_host = head.authority.is_empty() || is_authority(&head.authority);
    let has_no_host = head.authority.is_empty() && head.version == Version::HTTP_10;
    let is_form = head.target.starts_with('/') || head.target == "*";
    let is_writable = is_form && is_target(&head.target);
    if !is_writable || !is_host {
        return Err(Unwritable);
    }
    out.put_slice(head.method.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(head.target.as_bytes());
    out.put_slice(match head.version {
        Version::HTTP_10 => b" HTTP/1.0\r\n",
        _ => b" HTTP/1.1\r\n",
    });
    if !has_no_host {
        put_field(out, spelling.spell("host"), head.authority.as_bytes());
    }
    put_fields(out, &head.headers, spelling);
    put_framing(out, framing, spelling);
    put_connection(out, &head.headers, head.version, persistence, spelling);
    out.put_slice(b"\r\n");
    Ok(())
}

#[cfg(test)]
mod tests;
