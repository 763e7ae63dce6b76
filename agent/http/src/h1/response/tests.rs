//! Heads of responses that are accepted and refused.

use proptest::prelude::*;

use super::*;

fn read(text: &str, method: Method) -> Result<ParsedResponse, Malformed> {
    let parsed = ResponseParser::new(4096).parse(text.as_bytes(), &method)?;
    Ok(parsed.expect("a whole head"))
}

#[test]
fn a_body_ends_where_the_head_says() {
    for (status, field, method, framing) in [
        (
            "200 OK",
            "content-length: 5",
            Method::GET,
            Framing::Length(5),
        ),
        (
            "200 OK",
            "transfer-encoding: Chunked",
            Method::GET,
            Framing::Chunked,
        ),
        ("200 OK", "a: b", Method::GET, Framing::UntilClose),
        ("200 OK", "content-length: 5", Method::HEAD, Framing::None),
        ("200 OK", "a: b", Method::HEAD, Framing::None),
        (
            "204 No Content",
            "content-length: 5",
            Method::GET,
            Framing::None,
        ),
        (
            "304 Not Modified",
            "content-length: 5",
            Method::GET,
            Framing::None,
        ),
        ("100 Continue", "a: b", Method::POST, Framing::None),
        ("200", "content-length: 0", Method::GET, Framing::Length(0)),
    ] {
        let parsed = read(&format!("HTTP/1.1 {status}\r\n{field}\r\n\r\n"), method).unwrap();
        assert_eq!(parsed.framing, framing, "{status} {field}");
    }
}

#[test]
fn a_body_up_to_the_end_of_the_connection_ends_the_connection() {
    let close = |head: &str| read(head, Method::GET).unwrap().persistence;
    assert_eq!(
        close("HTTP/1.1 200 OK\r\n\r\n"),
        ConnectionPersistence::Close
    );
    assert_eq!(
        close("HTTP/1.1 204 x\r\n\r\n"),
        ConnectionPersistence::KeepAlive
    );
    assert_eq!(
        close("HTTP/1.1 204 x\r\nConnection: close\r\n\r\n"),
        ConnectionPersistence::Close
    );
    assert_eq!(
        close("HTTP/1.0 204 x\r\n\r\n"),
        ConnectionPersistence::Close
    );
    let kept = "HTTP/1.0 204 x\r\nConnection: Keep-Alive\r\n\r\n";
    assert_eq!(close(kept), ConnectionPersistence::KeepAlive);
}

#[test]
fn a_reason_is_kept_byte_for_byte() {
    for reason in ["", "OK", " a  b ", "\t", "d\u{e9}j\u{e0} vu"] {
        let parsed = read(&format!("HTTP/1.1 200 {reason}\r\n\r\n"), Method::GET).unwrap();
        assert_eq!(parsed.head.reason, reason);
    }
}

#[test]
fn a_malformed_response_is_refused() {
    for (head, expected) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked",
            Malformed::TwoLengths,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5",
            Malformed::ContentLength,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked",
            Malformed::TransferEncoding,
        ),
        (
            "HTTP/1.0 200 OK\r\ntransfer-encoding: gzip",
            Malformed::TransferEncoding,
        ),
        (
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5",
            Malformed::TwoLengths,
        ),
        ("HTTP/2.0 200 OK", Malformed::Version),
        ("HTTP/1.1 20 OK", Malformed::StatusLine),
        ("HTTP/1.1 2000", Malformed::StatusLine),
        ("HTTP/1.1  200", Malformed::StatusLine),
        ("ICY 200 OK", Malformed::Version),
        ("HTTP/1.1 200 OK\r\na : b", Malformed::Field),
        ("HTTP/1.1 200 OK\r\n a: b", Malformed::Field),
        (" HTTP/1.1 200 OK\r\na: b", Malformed::Field),
        ("HTTP/1.1 200 OK\r\na: b\r\n \r\nc: d", Malformed::Field),
        ("HTTP/1.1 200 OK\na: b\n\t\nc: d", Malformed::Field),
        ("HTTP/1.1 200 OK\r\na\r\n : b", Malformed::Field),
        ("HTTP/1.1 200 OK\r\na\r\n b: c", Malformed::Field),
        ("HTTP/1.1 200 OK\r\na: b\rc: d", Malformed::ControlCharacter),
        ("HTTP/1.1 200 OK\r\na: b\r\r\n", Malformed::ControlCharacter),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n 6",
            Malformed::ContentLength,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\ntransfer-encoding: chunked",
            Malformed::TwoLengths,
        ),
        (
            "HTTP/1.1 200 OK\r\nconnection: content-length; x\r\ncontent-length: 5",
            Malformed::Connection,
        ),
    ] {
        let refused = read(&format!("{head}\r\n\r\n"), Method::GET);
        assert_eq!(refused.map(|_| ()), Err(expected), "{head:?}");
    }
}

#[test]
fn old_forms_with_one_reading_are_read() {
    for (head, field) in [
        ("HTTP/1.1 200 OK\nx: a b\ncontent-length: 5\n\n", "a b"),
        ("HTTP/1.1 200 OK\r\nx: a b\ncontent-length: 5\r\n\n", "a b"),
        (
            "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 5\r\n\r\n",
            "a b",
        ),
        (
            "HTTP/1.1 200 OK\nx:\n\t a\n  b \ncontent-length:\n 5\n\n",
            "a b",
        ),
        (
            "HTTP/1.1 200 OK\r\nconnection: keep-alive; timeout=5\r\nx: a b\r\n\
             content-length: 5\r\n\r\n",
            "a b",
        ),
    ] {
        let text = format!("{head}hello");
        let parsed = read(&text, Method::GET).unwrap();
        assert_eq!(parsed.head.headers["x"], field, "{head:?}");
        assert_eq!(parsed.framing, Framing::Length(5), "{head:?}");
        assert_eq!(parsed.persistence, ConnectionPersistence::KeepAlive);
        assert_eq!(parsed.consumed, head.len(), "{head:?}");
    }
}

#[test]
fn chunks_in_http_1_0_end_the_connection() {
    let head = "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked";
    let parsed = read(&format!("{head}\r\n\r\n"), Method::GET).unwrap();
    assert_eq!(parsed.framing, Framing::Chunked);
    assert_eq!(parsed.persistence, ConnectionPersistence::Close);
}

fn any_head() -> impl Strategy<Value = String> {
    let field = prop_oneof![
        "[Xx]-[Aa]: ?[a-z\u{e9}\t ]{0,4}",
        "[ \t]{1,2}[a-z:]{0,3}",
        "Content-Length: ?[0-9]{0,2}",
        "Transfer-Encoding:[ ]?(chunked|gzip)?",
        "Connection: (close|keep-alive; timeout=5|upgrade|x-a|x-a;b|content-length)",
        "Keep-Alive: timeout=5",
        "Upgrade: websocket",
    ];
    let line = (field, "\r?\n|\r\n");
    let fields = prop::collection::vec(line, 0..5);
    let status = "HTTP/1\\.[01] (200 OK|204|304 |101 x|1000)\r?\n";
    (status, fields, "\r?\n").prop_map(|(status, fields, end)| {
        let fields = fields.iter().map(|(field, end)| format!("{field}{end}"));
        format!("{status}{}{end}", fields.collect::<String>())
    })
}

proptest! {
    #[test]
    fn a_head_is_the_same_in_one_part_or_two(text in any_head(), at in 0usize..80) {
        let bytes = text.as_bytes();
        let whole = ResponseParser::new(4096).parse(bytes, &Method::GET);
        let mut parser = ResponseParser::new(4096);
        let split = match parser.parse(&bytes[..at.min(bytes.len())], &Method::GET) {
            Ok(None) => parser.parse(bytes, &Method::GET),
            decided => decided,
        };
        prop_assert_eq!(split, whole);
    }

    /// What the client reads is in the usual form, and means what was read from the application.
    #[test]
    fn what_is_written_is_what_was_read(text in any_head()) {
        let parsed = ResponseParser::new(4096).parse(text.as_bytes(), &Method::GET);
        if let Ok(Some(response)) = parsed {
            let mut out = BytesMut::new();
            let ParsedResponse { head, framing, persistence, .. } = &response;
            write_response(head, *framing, *persistence, Version::HTTP_11, &mut out);
            prop_assert!(matches!(in_current_form(&out), Ok(Cow::Borrowed(_))));
            let again = ResponseParser::new(4096).parse(&out, &Method::GET).unwrap().unwrap();
            prop_assert_eq!(again.framing, response.framing);
            prop_assert_eq!(again.head.status, response.head.status);
            prop_assert_eq!(again.head.headers.get_all("x-a"), response.head.headers.get_all("x-a"));
        }
    }
}
