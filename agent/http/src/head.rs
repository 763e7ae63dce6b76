//! The head of a request, as policy judges it and as the application gets it.

use std::net::Ipv6Addr;

use http::header::EXPECT;
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use super::h1::SCANT;

/// A request's head. What the gate leaves in it is what is sent.
#[derive(Clone, PartialEq, Debug)]
pub struct RequestHead {
    /// The method, in upper case.
    pub method: Method,
    /// `:scheme`; `None` in HTTP/1.
    pub scheme: Option<Scheme>,
    /// `:authority`, the authority of an absolute target, or Host: unchanged, with its port. Empty
    /// only in an HTTP/1 request whose Host is empty, or in an HTTP/1.0 request without one.
    pub authority: String,
    /// The path and query, unchanged (in HTTP/1 with the fragment), or `*`.
    pub target: String,
    /// The headers without Host, which is [`RequestHead::authority`], and without hop-by-hop
    /// headers. Content-Length and Transfer-Encoding are here to be judged; changing them does not
    /// change the framing that is sent.
    pub headers: HeaderMap,
    /// The version that the client speaks.
    pub version: Version,
}

/// What a request of HTTP/1 takes while it is under way besides its head, in bytes: a small buffer each way. That
/// of HTTP/2: its streams on both sides.
const REQUEST_1: usize = 2 * SCANT;
const REQUEST_2: usize = 8 << 10;

/// What a header takes besides its name and value, in bytes, with the copy that is kept to judge it again.
const HEADER: usize = 256;

impl RequestHead {
    /// Returns about how many bytes of memory the request takes while it is under way: its text twice, once
    /// as it is judged and once as it is written.
    pub fn memory(&self) -> usize {
        let request = match self.version {
            Version::HTTP_2 => REQUEST_2,
            _ => REQUEST_1,
        };
        let headers = self.headers.iter();
        let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
        let text = self.authority.len() + self.target.len() + headers.map(size).sum::<usize>();
        request + HEADER * self.headers.len() + 2 * text
    }
}

/// Whether a string may be the target of a request line: visible ASCII.
pub(super) fn is_target(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether a string is RFC 3986's `host [":" port]`, as services have it: letters, digits, `-`, `.`
/// and `_`, or an IPv6 address in brackets. User information, escapes, empty ports and ports with
/// leading zeros are refused, since they could lead policies astray.
pub(crate) fn is_authority(text: &str) -> bool {
    let (is_host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => (address.parse::<Ipv6Addr>().is_ok(), port),
            None => return false,
        },
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (host, port) = text.split_at(end);
            (is_name(host), port)
        }
    };
    is_host && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

fn is_name(host: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !host.is_empty() && host.bytes().all(is_part)
}

fn is_port(port: &str) -> bool {
    let is_decimal = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
    is_decimal && port.parse::<u16>().is_ok()
}

/// Whether the client waits for 100 Continue before it sends the body (RFC 9110, section 10.1.1).
/// If so, Expect is removed, and the caller has to send it.
pub(super) fn take_expect(head: &mut RequestHead) -> bool {
    let waits = head.version != Version::HTTP_10
        && head
            .headers
            .get(EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if waits {
        head.headers.remove(EXPECT);
    }
    waits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_and_without_ports_are_authorities() {
        for text in [
            "a.com",
            "A.com:8080",
            "a_b-c.",
            "10.0.0.1",
            "10.0.0.1:80",
            "[fd00::1]",
            "[::1]:65535",
        ] {
            assert!(is_authority(text), "{text}");
        }
    }

    #[test]
    fn strings_that_could_be_read_in_two_ways_are_not_authorities() {
        for text in [
            "",
            ":80",
            "a.com:",
            "a.com:0",
            "a.com:080",
            "a.com:65536",
            "a.com:+8",
            "a.com:80:80",
            "user@a.com",
            "a.com/x",
            "a.com,b.com",
            "a b",
            "a%2ecom",
            "a.com#",
            "a?b",
            "\u{e9}.com",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[a.com]",
            "::1",
            "[fe80::1%eth0]",
            "a\\b",
        ] {
            assert!(!is_authority(text), "{text}");
        }
    }

    fn expecting(value: &'static str, version: Version) -> RequestHead {
        RequestHead {
            method: Method::POST,
            scheme: None,
            authority: "a".to_owned(),
            target: "/".to_owned(),
            headers: HeaderMap::from_iter([(EXPECT, HeaderValue::from_static(value))]),
            version,
        }
    }

    #[test]
    fn expect_is_taken_once_and_only_if_it_is_100_continue() {
        let mut head = expecting("100-Continue", Version::HTTP_11);
        assert!(take_expect(&mut head) && !take_expect(&mut head));
        assert!(head.headers.is_empty());
        for (value, version) in [
            ("100-continue", Version::HTTP_10),
            ("something-else", Version::HTTP_2),
        ] {
            let mut head = expecting(value, version);
            assert!(!take_expect(&mut head) && head.headers.contains_key(EXPECT));
        }
    }
}
