//! The head of an HTTP/1 request, and a chunked body. In one part or two, the bytes mean the same, and
//! the head that is sent means what was judged.

#![no_main]

use ambit_fuzz::ensure_linear;
use ambit_http::{HeadParser, ParsedRequest, decode_chunks, is_among_offered, write_request};
use arbitrary::Arbitrary;
use bytes::BytesMut;
use http::header::UPGRADE;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

/// The most bytes of a head or of trailers.
const MOST: usize = 1024;

/// The most header lines with which a head stays readable, once the agent's own lines are added.
const MOST_FIELDS: usize = 97;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    split: u16,
    bytes: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let at = usize::from(input.split).min(input.bytes.len());
    let whole = HeadParser::new(MOST).parse(input.bytes);
    let mut parser = HeadParser::new(MOST);
    let split = match parser.parse(&input.bytes[..at]) {
        Ok(None) => parser.parse(input.bytes),
        decided => decided,
    };
    assert_eq!(split, whole);
    if let Ok(Some(request)) = whole
        && request.head.headers.len() <= MOST_FIELDS
    {
        assert_eq!(sent(&request), request);
    }
    ensure_linear(input.bytes, |bytes| {
        HeadParser::new(bytes.len()).parse(bytes)
    });
    ensure_linear(input.bytes, |bytes| decode_chunks(&[bytes], MOST));
    ensure_linear(input.bytes, lists);
    let (first, second) = input.bytes.split_at(at);
    assert_eq!(
        decode_chunks(&[first, second], MOST),
        decode_chunks(&[input.bytes], MOST)
    );
});

/// Reads a request and a response whose lists are these bytes.
fn lists(bytes: &[u8]) {
    let Ok(list) = HeaderValue::from_bytes(bytes) else {
        return;
    };
    let headers = HeaderMap::from_iter([(UPGRADE, list)]);
    let _ = is_among_offered(&headers, &headers);
    let lines = [
        b"\r\nconnection: ",
        bytes,
        b"\r\nupgrade: ",
        bytes,
        b"\r\n\r\n",
    ]
    .concat();
    let head = [b"GET / HTTP/1.1\r\nhost: a", &lines[..]].concat();
    let _ = HeadParser::new(head.len()).parse(&head);
}

/// Returns the request as the application reads it.
fn sent(request: &ParsedRequest) -> ParsedRequest {
    let mut out = BytesMut::new();
    let ParsedRequest {
        head,
        spelling,
        framing,
        persistence,
        consumed,
    } = request;
    write_request(head, spelling, *framing, *persistence, &mut out).expect("it was read");
    let parsed = HeadParser::new(usize::MAX)
        .parse(&out)
        .expect("well formed");
    let mut again = parsed.expect("whole");
    again.consumed = *consumed;
    // Names that were not sent are not spelled.
    again.spelling = spelling.clone();
    again
}
