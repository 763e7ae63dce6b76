//! Which trailers are passed on. A program that takes trailers for headers must not get from them what it
//! should have got from the head, where it was judged, or where it says how the message is read (RFC 9110,
//! section 6.5.1). README.md lists what is removed.

use http::{HeaderMap, HeaderName};

use super::progress::MessageKind;
use ambit_model::folded;

/// Trailers that no message may have: about the connection, framing, routing, credentials, and the form of
/// the content.
const NEVER: [&str; 21] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "upgrade",
    "http2-settings",
    "transfer-encoding",
    "content-length",
    "trailer",
    "host",
    "authorization",
    "proxy-authorization",
    "www-authenticate",
    "proxy-authenticate",
    "cookie",
    "set-cookie",
    "set-cookie2",
    "content-encoding",
    "content-type",
    "content-range",
    "content-disposition",
];

/// More that a request must not have: about its caller, its way and its conditions, which policies and
/// applications judge.
const NEVER_IN_REQUESTS: [&str; 11] = [
    "expect",
    "max-forwards",
    "cache-control",
    "pragma",
    "range",
    "forwarded",
    "via",
    "origin",
    "referer",
    "x-real-ip",
    "location",
];

/// Beginnings of more names that a request must not have.
const NEVER_BEGUN_IN_REQUESTS: [&str; 3] = ["content-", "x-forwarded-", "if-"];

/// Trailers that a request may have although their names begin like that: they are known only after the
/// body (RFC 9530).
const KEPT_IN_REQUESTS: [&str; 2] = ["content-digest", "content-md5"];

/// Removes the trailers that a message must not have.
pub(super) fn retain(trailers: &mut HeaderMap, message: MessageKind) {
    let names: Vec<HeaderName> = trailers.keys().cloned().collect();
    for name in names.iter().filter(|name| !may_trail(name, message)) {
        trailers.remove(name);
    }
}

fn may_trail(name: &HeaderName, message: MessageKind) -> bool {
    // The name as a program may see it: `content_type` for `content-type`.
    let text = folded(name.as_str());
    let text = text.as_str();
    let is_begun = || {
        let mut begun = NEVER_BEGUN_IN_REQUESTS.iter();
        begun.any(|begin| text.starts_with(begin)) && !KEPT_IN_REQUESTS.contains(&text)
    };
    let is_removed = match message {
        MessageKind::Request => NEVER_IN_REQUESTS.contains(&text) || is_begun(),
        MessageKind::Response => false,
    };
    !NEVER.contains(&text) && !is_removed
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn kept(names: &[&str], message: MessageKind) -> Vec<String> {
        let trailer = |name: &&str| (name.parse().unwrap(), HeaderValue::from_static("x"));
        let mut trailers: HeaderMap = names.iter().map(trailer).collect();
        retain(&mut trailers, message);
        let mut kept: Vec<String> = trailers.keys().map(ToString::to_string).collect();
        kept.sort();
        kept
    }

    #[test]
    fn no_message_has_trailers_that_say_how_it_is_read() {
        for message in [MessageKind::Request, MessageKind::Response] {
            assert!(kept(&NEVER, message).is_empty());
            let folded = ["content_type", "set_cookie", "transfer.encoding"];
            assert!(kept(&folded, message).is_empty());
        }
    }

    #[test]
    fn an_answer_keeps_all_others() {
        let mut sent = [
            "grpc-status",
            "grpc-message",
            "date",
            "age",
            "expires",
            "retry-after",
            "cache-control",
            "content-digest",
            "repr-digest",
            "content-md5",
            "content-language",
            "content-location",
            "etag",
            "last-modified",
            "location",
            "server-timing",
            "vary",
            "via",
            "warning",
            "x-forwarded-for",
        ];
        sent.sort_unstable();
        assert_eq!(kept(&sent, MessageKind::Response), sent);
    }

    #[test]
    fn a_requests_trailers_say_nothing_about_its_caller_or_conditions() {
        let sent = [
            "x-forwarded-for",
            "x_forwarded_for",
            "x.real.ip",
            "if-match",
            "range",
            "via",
            "content-digest",
            "date",
            "grpc-status",
        ];
        let expected = ["content-digest", "date", "grpc-status"];
        assert_eq!(kept(&sent, MessageKind::Request), expected);
    }
}
