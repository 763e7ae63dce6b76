//! Which texts name a host: RFC 3986's `host [":" port]`, without what no service is called by and
//! policies could be led astray with.

use std::net::Ipv6Addr;

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
}
