//! The `forwarded` header (RFC 7239), which tells the caller's port.

use std::net::SocketAddr;

/// The header's value for a caller.
pub(crate) fn forwarded_for(caller: SocketAddr) -> String {
    format!("for=\"{caller}\"")
}

/// The first `for` of a header's value; `None` for anything that is not an address and port. A
/// malformed header never hurts the connection.
pub(crate) fn parse_forwarded(value: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(value).ok()?;
    let element = text.split(',').next()?;
    let parameter = element.split(';').map(str::trim).find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    })?;
    parameter.trim_matches('"').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for caller in ["10.1.2.3:4567", "[fd00::1]:80"] {
            let caller: SocketAddr = caller.parse().unwrap();
            assert_eq!(
                parse_forwarded(forwarded_for(caller).as_bytes()),
                Some(caller)
            );
        }
    }

    #[test]
    fn odd_forms_say_nothing() {
        for value in [
            "",
            "for",
            "for=",
            "for=_hidden",
            "for=\"10.1.2.3\"",
            "by=\"1.2.3.4:5\"",
            "\u{fffd}",
        ] {
            assert_eq!(parse_forwarded(value.as_bytes()), None, "{value:?}");
        }
        assert_eq!(parse_forwarded(&[0xff, 0xfe]), None);
        let first = parse_forwarded(b"proto=http; FOR=\"10.1.2.3:4\", for=\"10.9.9.9:9\"");
        assert_eq!(first, Some("10.1.2.3:4".parse().unwrap()));
    }
}
