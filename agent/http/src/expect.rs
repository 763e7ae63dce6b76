//! Clients that wait to be told to send their bodies (RFC 9110, section 10.1.1).

use http::Version;
use http::header::EXPECT;

use super::head::RequestHead;

/// Whether a request's client has to be told to send its body before it does. Then it will be: Expect
/// is taken out, since what it asks for is done here.
pub(super) fn take(head: &mut RequestHead) -> bool {
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
    use http::{HeaderMap, HeaderValue, Method};

    use super::*;

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
        assert!(take(&mut head) && !take(&mut head));
        assert!(head.headers.is_empty());
        for (value, version) in [
            ("100-continue", Version::HTTP_10),
            ("something-else", Version::HTTP_2),
        ] {
            let mut head = expecting(value, version);
            assert!(!take(&mut head) && head.headers.contains_key(EXPECT));
        }
    }
}
