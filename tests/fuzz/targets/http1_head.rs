//! The head of an HTTP/1 request, and a body in chunks: however the bytes are split, they are read in
//! the same way, and what is sent on is what was judged.

#![no_main]

use ambit_fuzz::ensure_linear;
use ambit_proxy::{
    ChunkDecoder, HeadParser, Malformed, ParsedRequest, Piece, is_among_offered, write_request,
};
use arbitrary::Arbitrary;
use bytes::BytesMut;
use http::header::UPGRADE;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

/// Bytes of a head or of trailers.
const MOST: usize = 1024;

/// The most lines of a head, which leave room for those that the agent adds.
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
    ensure_linear(input.bytes, |bytes| decode(&[bytes]));
    ensure_linear(input.bytes, lists);
    let (first, second) = input.bytes.split_at(at);
    assert_eq!(decode(&[first, second]), decode(&[input.bytes]));
});

/// A request and an answer whose lists are these bytes.
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

/// The request as the application reads it.
fn sent(request: &ParsedRequest) -> ParsedRequest {
    let mut out = BytesMut::new();
    let ParsedRequest {
        head,
        framing,
        persistence,
        consumed,
    } = request;
    write_request(head, *framing, *persistence, &mut out).expect("it was read");
    let parsed = HeadParser::new(usize::MAX)
        .parse(&out)
        .expect("well formed");
    let mut again = parsed.expect("whole");
    again.consumed = *consumed;
    again
}

type Decoded = (Vec<u8>, Option<HeaderMap>, Vec<u8>);

/// A body, its trailers if it has ended, and the bytes after it.
fn decode(parts: &[&[u8]]) -> Result<Decoded, Malformed> {
    let mut decoder = ChunkDecoder::new(MOST);
    let (mut input, mut body, mut end) = (BytesMut::new(), Vec::new(), None);
    for part in parts {
        input.extend_from_slice(part);
        while end.is_none() {
            match decoder.decode(&mut input)? {
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::End(trailers) => end = Some(trailers),
                Piece::More => break,
            }
        }
    }
    Ok((body, end, input.to_vec()))
}
