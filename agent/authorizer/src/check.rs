use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use ambit_model::WorkloadIdentity;

/// What an authorizer is asked about.
#[derive(Clone, Debug)]
pub struct Check<'a> {
    /// The caller.
    pub source: CheckPeer<'a>,
    /// The pod that is called.
    pub destination: CheckPeer<'a>,
    /// The request; `None` for a connection that is not looked into.
    pub request: Option<CheckedRequest<'a>>,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct CheckPeer<'a> {
    /// Its address.
    pub address: SocketAddr,
    /// Its verified identity; `None` for plaintext.
    pub principal: Option<&'a WorkloadIdentity>,
}

/// A request, as it will be passed on.
#[derive(Clone, Debug)]
pub struct CheckedRequest<'a> {
    /// What tells this request from others, such as `x-request-id`.
    pub id: &'a str,
    /// The method.
    pub method: &'a Method,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// `:authority`, or the Host header.
    pub authority: &'a str,
    /// The path, with the query.
    pub path: &'a str,
    /// The headers, without pseudo-headers.
    pub headers: &'a HeaderMap,
    /// The version in which it came.
    pub version: Version,
    /// The body as far as the provider may see it; `None` where it shall see none.
    pub body: Option<BodyPart>,
}

/// As much of a body as the provider may see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BodyPart {
    /// The bytes, at most `maxRequestBytes`.
    pub bytes: Bytes,
    /// Whether there is more.
    pub extent: BodyExtent,
}

/// How much of a body there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyExtent {
    /// All of it.
    Whole,
    /// The beginning.
    Beginning,
}

/// The header with which an authorizer is told whether it sees all of a body.
pub(super) const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

impl BodyExtent {
    /// The value of the header [`PARTIAL_BODY`].
    pub(super) fn as_partial(self) -> &'static str {
        match self {
            Self::Whole => "false",
            Self::Beginning => "true",
        }
    }
}

/// Bytes of a target, with its query. Gunicorn takes a request line of 4,094 bytes.
const LONGEST_TARGET: usize = 4_000;

/// Bytes of a head as it is sent. Nginx, Apache and Tomcat take 8 KiB of it.
const LONGEST_HEAD: usize = 8_000;

/// Bytes of a body. Nginx takes 1 MiB.
const LONGEST_BODY: usize = 1 << 20;

/// Methods that servers know (RFC 9110, section 9, and RFC 5789).
const METHODS: [Method; 8] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::OPTIONS,
    Method::PATCH,
    Method::TRACE,
];

/// Why an authorizer may fail on a check.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Oddity {
    /// Few servers know the method.
    #[error("its method is not one of HTTP's own")]
    Method,
    /// The target is long.
    #[error("its path and query are longer than {LONGEST_TARGET} bytes")]
    LongTarget,
    /// The target does not decode to text.
    #[error("its path or query has an escape that is malformed or no UTF-8")]
    Escape,
    /// The head is long.
    #[error("its headers are longer than {LONGEST_HEAD} bytes")]
    LongHead,
    /// A header is not text.
    #[error("a header has characters outside of ASCII")]
    Header,
    /// The body is long.
    #[error("its body is longer than {LONGEST_BODY} bytes")]
    LongBody,
}

/// A check as far as its caller determines it.
pub(super) struct SentCheck<'a> {
    pub(super) method: &'a Method,
    pub(super) target: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: usize,
}

impl<'a> SentCheck<'a> {
    /// A check that has all of the request.
    pub(super) fn whole(request: &'a CheckedRequest<'a>) -> Self {
        Self {
            method: request.method,
            target: request.path,
            headers: request.headers,
            body: request.body.as_ref().map_or(0, |body| body.bytes.len()),
        }
    }

    /// What is odd about it; `None` for an ordinary one.
    pub(super) fn oddity(&self) -> Option<Oddity> {
        let is_text = |value: &HeaderValue| value.to_str().is_ok();
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            name.as_str().len() + value.len() + ": \r\n".len()
        };
        let head = self.headers.iter().map(line).sum::<usize>() + self.target.len();
        let checks = [
            (METHODS.contains(self.method), Oddity::Method),
            (self.target.len() <= LONGEST_TARGET, Oddity::LongTarget),
            (decodes_to_text(self.target), Oddity::Escape),
            (head <= LONGEST_HEAD, Oddity::LongHead),
            (self.headers.values().all(is_text), Oddity::Header),
            (self.body <= LONGEST_BODY, Oddity::LongBody),
        ];
        let failed = checks.into_iter().find(|(is_ordinary, _)| !is_ordinary);
        failed.map(|(_, oddity)| oddity)
    }
}

/// Whether each `%` begins an escape, and what they stand for is UTF-8.
fn decodes_to_text(target: &str) -> bool {
    let mut decoded = Vec::with_capacity(target.len());
    let mut rest = target.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return false;
        };
        decoded.extend(u8::try_from(high * 16 + low));
    }
    std::str::from_utf8(&decoded).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oddity(method: Method, target: &str, value: &[u8], body: usize) -> Option<Oddity> {
        let value = HeaderValue::from_bytes(value).expect("a value");
        let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, value)]);
        let sent = SentCheck {
            method: &method,
            target,
            headers: &headers,
            body,
        };
        sent.oddity()
    }

    #[test]
    fn what_servers_may_fail_on_is_odd() {
        let long = |length: usize| "a".repeat(length);
        let target = |length: usize| format!("/{}", long(length - 1));
        let get = Method::GET;
        for (target, value, body, expected) in [
            (target(LONGEST_TARGET), "t".to_owned(), LONGEST_BODY, None),
            ("/caf%C3%A9?q=%20%25".to_owned(), "t".to_owned(), 0, None),
            (
                target(LONGEST_TARGET + 1),
                "t".to_owned(),
                0,
                Some(Oddity::LongTarget),
            ),
            (
                "/".to_owned(),
                long(LONGEST_HEAD),
                0,
                Some(Oddity::LongHead),
            ),
            ("/%".to_owned(), "t".to_owned(), 0, Some(Oddity::Escape)),
            ("/%4".to_owned(), "t".to_owned(), 0, Some(Oddity::Escape)),
            ("/%+1".to_owned(), "t".to_owned(), 0, Some(Oddity::Escape)),
            ("/%C3".to_owned(), "t".to_owned(), 0, Some(Oddity::Escape)),
            (
                "/?q=%ff".to_owned(),
                "t".to_owned(),
                0,
                Some(Oddity::Escape),
            ),
            (
                "/".to_owned(),
                "t".to_owned(),
                LONGEST_BODY + 1,
                Some(Oddity::LongBody),
            ),
        ] {
            assert_eq!(
                oddity(get.clone(), &target, value.as_bytes(), body),
                expected,
                "{target}"
            );
        }
        assert_eq!(oddity(get, "/", b"\xff", 0), Some(Oddity::Header));
        let brew = Method::from_bytes(b"BREW").expect("a method");
        assert_eq!(oddity(brew, "/", b"t", 0), Some(Oddity::Method));
    }
}
