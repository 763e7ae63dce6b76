//! The head of a request, as policy judges it and as the application gets it.

use std::net::Ipv6Addr;

use http::header::EXPECT;
use http::uri::Scheme;
use http::{HeaderMap, Method, Version};

/// A request's head. What the gate leaves in it is what is sent.
#[derive(Clone, PartialEq, Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// `:scheme`; `None` in HTTP/1.
    pub scheme: Option<Scheme>,
    /// `:authority`, the authority of an absolute target, or Host, as it came, with its port. Empty
    /// only where an HTTP/1.0 request has none.
    pub authority: String,
    /// The path and query as they came (with the fragment, in HTTP/1), or `*`.
    pub target: String,
    /// The headers without Host, which is [`RequestHead::authority`], and without what concerns one
    /// connection only. Content-Length and Transfer-Encoding are there to be judged; what is sent
    /// follows the request's framing, whatever becomes of them here.
    pub headers: HeaderMap,
    /// The version that the client speaks.
    pub version: Version,
}

/// Whether a text may stand between the spaces of a request line: visible ASCII.
pub(super) fn is_target(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether a text is a host with an optional port: letters, digits, `-`, `.`, `_`, or an IPv6
/// address in brackets. No user, no escapes, no empty port, and no second way to write a port.
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

/// Whether a request's client has to be told to send its body before it does. Then it will be: Expect
/// is taken out, since what it asks for is done here.
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
    use http::HeaderValue;

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
    fn what_could_be_read_in_two_ways_is_none() {
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
    fn a_client_is_told_once_and_only_what_it_waits_for() {
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
