//! Attacks on the framing, as raw bytes, and the heads that are accepted.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

const MOST: usize = 60 << 10;

fn read(text: &[u8]) -> Result<ParsedRequest, Malformed> {
    let parsed = HeadParser::new(MOST).parse(text)?;
    Ok(parsed.expect("a whole head"))
}

/// A request with these lines after its Host.
fn with(lines: &str) -> Result<ParsedRequest, Malformed> {
    read(format!("POST /x HTTP/1.1\r\nHost: a.com\r\n{lines}\r\n\r\n").as_bytes())
}

fn line(line: &str) -> Result<ParsedRequest, Malformed> {
    read(format!("{line}\r\nHost: a.com\r\n\r\n").as_bytes())
}

fn ensure_refused(lines: &[&str], expected: Malformed) {
    for text in lines {
        assert_eq!(with(text).map(|_| ()), Err(expected), "{text:?}");
    }
}

#[test]
fn an_ordinary_request_is_read() {
    let request =
        read(b"GET /a/../b?c=d HTTP/1.1\r\nHost: a.com:80\r\nX-A: 1\r\nx-a: 2\r\n\r\nrest");
    let request = request.unwrap();
    assert_eq!(request.head.method, Method::GET);
    assert_eq!(request.head.authority, "a.com:80");
    assert_eq!(request.head.target, "/a/../b?c=d");
    assert_eq!(request.head.headers.get_all("x-a").iter().count(), 2);
    assert!(!request.head.headers.contains_key("host"));
    assert_eq!(request.framing, Framing::None);
    assert_eq!(request.persistence, ConnectionPersistence::KeepAlive);
    assert_eq!(request.consumed, 60);
}

#[test]
fn bodies_are_framed_by_one_header() {
    assert_eq!(
        with("Content-Length: 5").unwrap().framing,
        Framing::Length(5)
    );
    assert_eq!(
        with("Content-Length: 005").unwrap().framing,
        Framing::Length(5)
    );
    assert_eq!(
        with("Transfer-Encoding: CHUNKED").unwrap().framing,
        Framing::Chunked
    );
}

#[test]
fn content_length_with_transfer_encoding_is_refused() {
    ensure_refused(
        &[
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 0",
        ],
        Malformed::TwoLengths,
    );
}

#[test]
fn content_lengths_that_are_not_one_number_are_refused() {
    ensure_refused(
        &[
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: +5",
            "Content-Length: -5",
            "Content-Length: 5,5",
            "Content-Length: 5 5",
            "Content-Length: 0x5",
            "Content-Length:",
            "Content-Length: 18446744073709551616",
            "Content-Length: 5.0",
        ],
        Malformed::ContentLength,
    );
}

#[test]
fn transfer_encodings_other_than_chunked_are_refused() {
    ensure_refused(
        &[
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: \"chunked\"",
            "Transfer-Encoding: chunked;q=1",
            "Transfer-Encoding:",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        ],
        Malformed::TransferEncoding,
    );
    let padded = with("Transfer-Encoding: \x0bchunked").map(|_| ());
    assert_eq!(padded, Err(Malformed::ControlCharacter));
}

#[test]
fn transfer_encoding_in_http_1_0_is_refused() {
    let refused = read(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(refused, Err(Malformed::TransferEncoding));
}

#[test]
fn folded_lines_and_white_space_in_names_are_refused() {
    ensure_refused(
        &[
            "X: a\r\n b",
            "X: a\r\n\tContent-Length: 5",
            "Content-Length : 5",
            "Content-Length\t: 5",
            "Content Length: 5",
            ": 5",
            "Content-Length",
            " X: a",
        ],
        Malformed::Field,
    );
}

#[test]
fn host_has_to_be_there_once() {
    let read = |hosts: &str| read(format!("GET / HTTP/1.1\r\n{hosts}\r\n").as_bytes()).map(|_| ());
    assert_eq!(read("Host: a.com\r\n"), Ok(()));
    assert_eq!(read(""), Err(Malformed::Host));
    assert_eq!(read("Host: a.com\r\nHost: a.com\r\n"), Err(Malformed::Host));
    assert_eq!(read("Host: a.com\r\nhost: b.com\r\n"), Err(Malformed::Host));
}

#[test]
fn an_empty_host_is_the_hosts_absence() {
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let request = read(format!("GET / {version}\r\nHost: \r\n\r\n").as_bytes()).unwrap();
        assert_eq!(request.head.authority, "");
        let differs = format!("GET http://a.com/ {version}\r\nHost:\r\n\r\n");
        assert_eq!(read(differs.as_bytes()), Err(Malformed::Host));
    }
    let twice = read(b"GET / HTTP/1.1\r\nHost:\r\nHost: a.com\r\n\r\n");
    assert_eq!(twice, Err(Malformed::Host));
}

#[test]
fn a_malformed_host_is_refused() {
    for host in [
        "\"\"",
        "a b",
        "a/b",
        "u@a.com",
        "a.com,b.com",
        "a.com:",
        "a.com:x",
        "\u{e9}",
        "a?b",
    ] {
        let refused = read(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert_eq!(refused, Err(Malformed::Host), "{host:?}");
        let refused = read(format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes());
        assert_eq!(refused, Err(Malformed::Host), "{host:?}");
    }
}

#[test]
fn the_authority_of_an_absolute_target_wins_and_host_must_not_differ() {
    let request = line("GET http://A.com/x?y HTTP/1.1").unwrap();
    assert_eq!(request.head.authority, "A.com");
    assert_eq!(request.head.target, "/x?y");
    for (target, expected) in [
        ("http://a.com", "/"),
        ("HTTPS://a.com?x", "/?x"),
        ("http://a.com\\x", "/\\x"),
        ("http://a.com#x", "/#x"),
    ] {
        let request = line(&format!("GET {target} HTTP/1.1")).unwrap();
        assert_eq!(request.head.target, expected, "{target}");
    }
    for target in [
        "http://b.com/",
        "http://a.com:80/",
        "http://user@a.com/",
        "http:///x",
    ] {
        let refused = line(&format!("GET {target} HTTP/1.1")).map(|_| ());
        assert_eq!(refused, Err(Malformed::Host), "{target}");
    }
}

#[test]
fn http_1_0_needs_no_host() {
    let request = read(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(request.head.authority, "");
    assert_eq!(request.persistence, ConnectionPersistence::Close);
    let kept = read(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").unwrap();
    assert_eq!(kept.persistence, ConnectionPersistence::KeepAlive);
}

#[test]
fn nul_and_control_characters_and_lone_line_ends_are_refused() {
    for text in [
        &b"GET /\0 HTTP/1.1\r\n"[..],
        b"GET /\x7f HTTP/1.1\r\n",
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\r\nHost: a.com\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.com\rX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\r\n",
        b"GET / HTTP/1.1\r\nX: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\x08\r\n\r\n",
        b"GET\x0b/ HTTP/1.1\r\n\r\n",
    ] {
        let refused = HeadParser::new(MOST).parse(text);
        assert_eq!(refused, Err(Malformed::ControlCharacter), "{text:?}");
    }
}

#[test]
fn a_forbidden_byte_is_refused_before_the_rest_has_arrived() {
    let refused = HeadParser::new(MOST).parse(b"GET /\0");
    assert_eq!(refused, Err(Malformed::ControlCharacter));
}

#[test]
fn methods_in_lower_case_are_refused() {
    for method in ["get", "Get", "pOST", "G@T"] {
        let refused = line(&format!("{method} / HTTP/1.1")).map(|_| ());
        assert_eq!(refused, Err(Malformed::Method), "{method}");
    }
    for method in ["M-SEARCH", "PATCH", "PURGE"] {
        assert!(line(&format!("{method} / HTTP/1.1")).is_ok(), "{method}");
    }
}

#[test]
fn connect_is_refused() {
    let refused = line("CONNECT a.com:80 HTTP/1.1").map(|_| ());
    assert_eq!(refused, Err(Malformed::Connect));
}

#[test]
fn other_versions_are_refused() {
    for version in [
        "HTTP/0.9",
        "HTTP/2.0",
        "HTTP/1.2",
        "HTTP/1.10",
        "http/1.1",
        "HTTP/1.1 ",
    ] {
        assert!(line(&format!("GET / {version}")).is_err(), "{version}");
    }
    assert_eq!(line("GET /").map(|_| ()), Err(Malformed::RequestLine));
    assert_eq!(
        read(b"PRI * HTTP/2.0\r\n\r\n").map(|_| ()),
        Err(Malformed::Version)
    );
}

#[test]
fn targets_with_spaces_or_other_than_visible_ascii_are_refused() {
    assert_eq!(
        line("GET /a b HTTP/1.1").map(|_| ()),
        Err(Malformed::RequestLine)
    );
    assert_eq!(
        line("GET  / HTTP/1.1").map(|_| ()),
        Err(Malformed::RequestLine)
    );
    for target in [
        "/\u{e9}",
        "x",
        "a.com",
        "*",
        "",
        "ftp://a.com/",
        "//a.com\u{a0}",
    ] {
        let refused = line(&format!("GET {target} HTTP/1.1")).map(|_| ());
        assert_eq!(refused, Err(Malformed::Target), "{target:?}");
    }
    assert!(line("GET /a\tb HTTP/1.1").is_err());
    assert_eq!(line("OPTIONS * HTTP/1.1").unwrap().head.target, "*");
    assert_eq!(
        line("OPTIONS http://a.com HTTP/1.1").unwrap().head.target,
        "*"
    );
}

#[test]
fn heads_that_are_too_large_are_refused() {
    let long = format!("X: {}", "x".repeat(MOST));
    ensure_refused(
        &[&long, &"a: b\r\n".repeat(100)[..598]],
        Malformed::TooLarge,
    );
    assert_eq!(Malformed::TooLarge.status(), 431);
}

/// What httparse accepts of these is why its word alone is not enough.
#[test]
fn heads_that_httparse_alone_would_accept_are_refused() {
    for text in [
        "GET / HTTP/1.1\nHost: a.com\n\n",
        "GET / HTTP/1.1\r\nHost: a.com\nX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.com\r\n\n",
        "\nGET / HTTP/1.1\r\nHost: a.com\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a.com\r\n\r\n",
        "GET /\u{e9} HTTP/1.1\r\nHost: a.com\r\n\r\n",
        "get / HTTP/1.1\r\nHost: a.com\r\n\r\n",
    ] {
        let mut fields = NO_FIELDS;
        let accepted = httparse::Request::new(&mut fields).parse(text.as_bytes());
        assert!(
            accepted.is_ok_and(|status| status.is_complete()),
            "{text:?}"
        );
        let refused = HeadParser::new(MOST).parse(text.as_bytes());
        assert!(refused.is_err(), "{text:?}");
    }
}

#[test]
fn a_line_too_many_is_too_large_whatever_it_says() {
    let lines = |count: usize, last: &str| "a: b\r\n".repeat(count) + last;
    // Host is one of the hundred lines.
    assert!(with(&lines(98, "a: b")).is_ok());
    assert_eq!(with(&lines(99, "a: b")), Err(Malformed::TooLarge));
    assert_eq!(with(&lines(99, "a : b")), Err(Malformed::TooLarge));
    assert_eq!(
        with(&("a : b\r\n".to_owned() + &lines(99, "a: b"))),
        Err(Malformed::Field)
    );
}

fn head_to(target: &str, authority: &str) -> RequestHead {
    RequestHead {
        method: Method::GET,
        scheme: None,
        authority: authority.to_owned(),
        target: target.to_owned(),
        headers: HeaderMap::new(),
        version: Version::HTTP_11,
    }
}

#[test]
fn a_gate_cannot_write_another_request_into_a_head() {
    for (target, authority) in [
        ("/ HTTP/1.1\r\nx: y", "a.com"),
        ("/\u{e9}", "a.com"),
        ("", "a.com"),
        ("x", "a.com"),
        ("/", "a.com\r\nx: y"),
    ] {
        let mut out = BytesMut::new();
        let written = write_request(
            &head_to(target, authority),
            &Spelling::default(),
            Framing::None,
            ConnectionPersistence::KeepAlive,
            &mut out,
        );
        assert_eq!(written, Err(Unwritable), "{target:?} {authority:?}");
        assert!(out.is_empty());
    }
}

#[test]
fn a_gate_cannot_change_the_framing() {
    let mut head = head_to("/", "a.com");
    for (name, value) in [
        ("content-length", "5"),
        ("connection", "x"),
        ("host", "b.com"),
    ] {
        head.headers.insert(name, value.parse().unwrap());
    }
    let mut out = BytesMut::new();
    write_request(
        &head,
        &Spelling::default(),
        Framing::Chunked,
        ConnectionPersistence::Close,
        &mut out,
    )
    .unwrap();
    let expected = "GET / HTTP/1.1\r\nhost: a.com\r\ntransfer-encoding: chunked\r\n\
                    connection: close\r\n\r\n";
    assert_eq!(out, expected);
}

fn any_head() -> impl Strategy<Value = String> {
    let method = prop_oneof!["GET", "POST", "OPTIONS", "get", "[A-Z]{1,3}"];
    let target = prop_oneof![
        "/[a-z?#%.\\\\/]{0,8}",
        "http://a\\.com/x?",
        "\\*",
        "[a-z ]{0,3}"
    ];
    let field = prop_oneof![
        "Host: (a\\.com|b)",
        "Content-Length: [0-9,+]{0,3}",
        "Transfer-Encoding: [Cc]hunked",
        "Connection: (close|keep-alive|upgrade|te|x-a|host|cookie|trailer|, )",
        "Upgrade: (websocket|h2c|websocket, h2c)",
        "TE: (trailers|gzip)",
        "(Cookie|Trailer): a",
        "[Xx]-[Aa]: ?[a-z\u{e9}\t ]{0,4}",
        "[a-z :]{0,6}",
    ];
    let fields = prop::collection::vec(field, 0..5);
    let first = (method, target, "HTTP/1\\.[01]", "Host: ?(a\\.com)?");
    (first, fields).prop_map(|((method, target, version, host), fields)| {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        format!("{method} {target} {version}\r\n{host}\r\n{fields}\r\n")
    })
}

proptest! {
    #[test]
    fn a_head_is_the_same_in_one_part_or_two(text in any_head(), at in 0usize..80) {
        let bytes = text.as_bytes();
        let whole = HeadParser::new(MOST).parse(bytes);
        let mut parser = HeadParser::new(MOST);
        let split = match parser.parse(&bytes[..at.min(bytes.len())]) {
            Ok(None) => parser.parse(bytes),
            decided => decided,
        };
        prop_assert_eq!(split, whole);
    }

    #[test]
    fn what_is_sent_is_what_was_judged(text in any_head()) {
        if let Ok(Some(request)) = HeadParser::new(MOST).parse(text.as_bytes()) {
            let mut sent = BytesMut::new();
            let ParsedRequest { head, spelling, framing, persistence, .. } = &request;
            write_request(head, spelling, *framing, *persistence, &mut sent).unwrap();
            let mut again = HeadParser::new(MOST).parse(&sent).unwrap().unwrap();
            again.consumed = request.consumed;
            // Names that were not sent are not spelled.
            again.spelling = spelling.clone();
            prop_assert_eq!(again, request);
        }
    }
}
