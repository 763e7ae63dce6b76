use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use ambit_model::WorkloadIdentity;

/// The header that tells an authorizer whether the body is incomplete.
pub(super) const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

/// The longest target with its query, in bytes. Gunicorn accepts a request line of 4,094 bytes.
const LONGEST_TARGET: usize = 4_000;

/// The longest head as sent, in bytes. Nginx, Apache and Tomcat accept 8 KiB.
const LONGEST_HEAD: usize = 8_000;

/// The longest body, in bytes. Nginx accepts 1 MiB.
const LONGEST_BODY: usize = 1 << 20;

/// The methods that servers know (RFC 9110, section 9, and RFC 5789).
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

/// What an authorizer is asked about.
#[derive(Clone, Debug)]
pub struct AuthorizationCheck<'a> {
    /// The caller.
    pub source: CheckPeer<'a>,
    /// The pod that received the request or connection.
    pub destination: CheckPeer<'a>,
    /// The request; `None` for a connection that is not parsed as HTTP.
    pub request: Option<CheckedRequest<'a>>,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct CheckPeer<'a> {
    /// The end's address and port.
    pub address: SocketAddr,
    /// Its verified identity; `None` for plaintext.
    pub principal: Option<&'a WorkloadIdentity>,
}

/// A request in the form in which it will be passed on.
#[derive(Clone, Debug)]
pub struct CheckedRequest<'a> {
    /// An identifier of this request, such as `x-request-id`.
    pub id: &'a str,
    /// The method, such as GET.
    pub method: &'a Method,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// `:authority`, or the Host header.
    pub authority: &'a str,
    /// The path with the query.
    pub path: &'a str,
    /// The headers, without pseudo-headers.
    pub headers: &'a HeaderMap,
    /// The version in which the request arrived.
    pub version: Version,
    /// The part of the body that the provider may see; `None` if it may see none.
    pub body: Option<BodyPart>,
}

/// The part of a body that the provider may see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BodyPart {
    /// The bytes, at most `maxRequestBytes`.
    pub bytes: Bytes,
    /// Whether the body continues.
    pub extent: BodyExtent,
}

/// How much of a body is included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyExtent {
    /// All of it.
    Whole,
    /// The beginning only.
    Beginning,
}

impl BodyExtent {
    /// The value of the header [`PARTIAL_BODY`].
    pub(super) fn as_partial(self) -> &'static str {
        match self {
            Self::Whole => "false",
            Self::Beginning => "true",
        }
    }
}

/// What is unusual about a check, such that many authorizers fail on it. A caller can cause that, so
/// `failOpen` does not apply to these checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Oddity {
    /// Few servers know the method.
    #[error("its method is not one of HTTP's own")]
    Method,
    /// The target is long.
    #[error("its path and query are longer than {LONGEST_TARGET} bytes")]
    LongTarget,
    /// The target does not decode to UTF-8.
    #[error("its path or query has an escape that is malformed or not UTF-8")]
    Escape,
    /// The head is long.
    #[error("its headers are longer than {LONGEST_HEAD} bytes")]
    LongHead,
    /// A header has bytes outside ASCII.
    #[error("a header has characters outside of ASCII")]
    Header,
    /// The body is long.
    #[error("its body is longer than {LONGEST_BODY} bytes")]
    LongBody,
}

/// The parts of a check that its caller controls, as they are sent.
pub(super) struct SentCheck<'a> {
    pub(super) method: &'a Method,
    pub(super) target: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: usize,
}

impl<'a> SentCheck<'a> {
    /// A check that contains the whole request.
    pub(super) fn whole(request: &'a CheckedRequest<'a>) -> Self {
        Self {
            method: request.method,
            target: request.path,
            headers: request.headers,
            body: request.body.as_ref().map_or(0, |body| body.bytes.len()),
        }
    }

    /// What is unusual about the check; `None` if nothing is.
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

/// Whether each `%` begins an escape, and the result is UTF-8.
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
    fn checks_that_servers_may_fail_on_are_odd() {
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
