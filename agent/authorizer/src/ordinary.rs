//! Which checks every authorizer takes. With others a caller can make many an authorizer fail, so that
//! `failOpen` does not count for them.

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::check::CheckedRequest;

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
