//! The head of an HTTP/1 request, and a body in chunks: however the bytes come, they say the same,
//! and what is sent on says what was judged.

#![no_main]

use ambit::proxy::{ChunkDecoder, HeadParser, Malformed, ParsedRequest, Piece, write_request};
use arbitrary::Arbitrary;
use bytes::BytesMut;
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;

/// Bytes of a head or of trailers.
const MOST: usize = 1024;

/// Lines of a head that leave room for those that are written besides.
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
    let (first, second) = input.bytes.split_at(at);
    assert_eq!(decode(&[first, second]), decode(&[input.bytes]));
});

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

/// A body, its trailers where it ended, and what is left.
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
