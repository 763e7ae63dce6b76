//! Tells the protocol from a connection's first bytes.

/// The first bytes of a client that speaks HTTP/2 with prior knowledge (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The most empty lines before a request (RFC 9112, section 2.2). They are dropped: no reader takes them for
/// anything else, and the application does not get them.
pub(super) const MOST_EMPTY_LINES: usize = 16;

/// Bytes of the longest method that is accepted.
pub(super) const LONGEST_METHOD: usize = 32;

/// The protocol, as far as the bytes tell it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    /// More bytes are needed.
    Undecided,
    /// HTTP/1, well formed or not: a method's token and a space, behind empty lines or not.
    Http1,
    /// HTTP/2.
    Http2,
    /// Not HTTP.
    Other,
}

/// Returns the protocol as soon as the bytes tell it.
pub(super) fn sniff(bytes: &[u8]) -> Protocol {
    if bytes.starts_with(PREFACE) {
        return Protocol::Http2;
    }
    if PREFACE.starts_with(bytes) {
        return Protocol::Undecided;
    }
    let bytes = match without_empty_lines(bytes) {
        b"" | b"\r" => return Protocol::Undecided,
        bytes => bytes,
    };
    let token = bytes.iter().take_while(|&&byte| is_tchar(byte)).count();
    match bytes.get(token) {
        _ if token > LONGEST_METHOD => Protocol::Other,
        Some(b' ') if token > 0 => Protocol::Http1,
        Some(_) => Protocol::Other,
        None => Protocol::Undecided,
    }
}

/// Returns what follows the empty lines before a request, of which there are [`MOST_EMPTY_LINES`] at most.
pub(super) fn without_empty_lines(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    for _ in 0..MOST_EMPTY_LINES {
        match rest.strip_prefix(b"\r\n") {
            Some(behind) => rest = behind,
            None => break,
        }
    }
    rest
}

/// Whether a byte may be in a token (RFC 9110, section 5.6.2).
pub(super) const fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ensures that the protocol is undecided before `decided_at` bytes, and known from there on.
    fn ensure(bytes: &[u8], decided_at: usize, protocol: Protocol) {
        for end in 0..=bytes.len() {
            let expected = if end < decided_at {
                Protocol::Undecided
            } else {
                protocol
            };
            assert_eq!(sniff(&bytes[..end]), expected, "{:?}", &bytes[..end]);
        }
    }

    #[test]
    fn http_1_is_known_by_a_method_and_a_space() {
        ensure(b"GET / HTTP/1.1\r\n", 4, Protocol::Http1);
        ensure(b"get /", 4, Protocol::Http1);
        ensure(b"GET \0", 4, Protocol::Http1);
        ensure(b"PUT / HTTP/1.1", 4, Protocol::Http1);
        let longest = [&[b'M'; LONGEST_METHOD][..], b" /"].concat();
        ensure(&longest, LONGEST_METHOD + 1, Protocol::Http1);
    }

    #[test]
    fn http_2_is_known_by_all_of_its_preface() {
        ensure(PREFACE, PREFACE.len(), Protocol::Http2);
        let mut broken = PREFACE.to_vec();
        broken[18] = b'X';
        ensure(&broken, 19, Protocol::Http1);
    }

    #[test]
    fn empty_lines_before_http_1_are_skipped_up_to_a_bound() {
        ensure(b"\r\nGET / HTTP/1.1\r\n", 6, Protocol::Http1);
        let most = ["\r\n".repeat(MOST_EMPTY_LINES), "GET / ".to_owned()].concat();
        ensure(most.as_bytes(), 2 * MOST_EMPTY_LINES + 4, Protocol::Http1);
        let more = ["\r\n".repeat(MOST_EMPTY_LINES + 1), "GET / ".to_owned()].concat();
        ensure(more.as_bytes(), 2 * MOST_EMPTY_LINES + 2, Protocol::Other);
        // HTTP/2 has none: this is a malformed request of HTTP/1.
        let second = [b"\r\n", PREFACE].concat();
        ensure(&second, 6, Protocol::Http1);
    }

    #[test]
    fn other_protocols_are_known_by_the_byte_that_cannot_be_http() {
        ensure(b"\x16\x03\x01", 1, Protocol::Other);
        ensure(b"\nGET / HTTP/1.1", 1, Protocol::Other);
        ensure(b"\r\n\nGET / HTTP/1.1", 3, Protocol::Other);
        ensure(b"\r\rGET / HTTP/1.1", 2, Protocol::Other);
        ensure(b" GET /", 1, Protocol::Other);
        ensure(b"SSH-2.0-OpenSSH_9.6\r\n", 20, Protocol::Other);
        ensure(b"*1\r\n$4\r\nPING\r\n", 3, Protocol::Other);
        ensure(b"PRI\r\n", 4, Protocol::Other);
        let endless = [b'M'; LONGEST_METHOD + 2];
        ensure(&endless, LONGEST_METHOD + 1, Protocol::Other);
    }
}
