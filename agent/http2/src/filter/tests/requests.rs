//! Malformed requests, beside others.

use super::*;
use crate::frame::{PADDED, PRIORITY};

/// Heads that are malformed, each for another reason.
fn malformed() -> Vec<Vec<Field>> {
    let with = |name: &str, value: &[u8]| {
        let mut fields = get("/");
        fields.push(field(name, value));
        fields
    };
    let mut late = get("/");
    late.swap(0, 3);
    late.insert(1, field("a", "b"));
    vec![
        get(b"/\xff"),
        get(b"/\xc3\x28"),
        with("Upper", b"a"),
        with("a b", b"a"),
        with("", b""),
        with("", b"a"),
        with("a", b"line\nbreak"),
        with("a", b"nul\0"),
        with("a", b"\x7f"),
        with(":unknown", b""),
        with(":path", b"/"),
        with(":status", b"20"),
        with("connection", b"close"),
        with("te", b"gzip"),
        vec![field(":method", "")],
        vec![field(":method", "G T")],
        late,
    ]
}

/// Malformed heads on streams 1, 5, 9 and so on, and others in between.
fn mixed(write: impl Fn(&[Field]) -> BytesMut) -> (BytesMut, Vec<u32>, Vec<u32>) {
    let mut sent = begun();
    let (mut bad, mut good) = (Vec::new(), Vec::new());
    for (stream, fields) in (1..).step_by(4).zip(malformed()) {
        sent.unsplit(whole(stream, &write(&fields)));
        sent.unsplit(whole(stream + 2, &write(&get("/fine"))));
        bad.push(stream);
        good.push(stream + 2);
    }
    (sent, bad, good)
}

#[test]
fn a_malformed_head_ends_only_its_own_stream() {
    for write in [literals, entered] {
        let (sent, bad, good) = mixed(write);
        for piece in [1, 10, 1 << 20] {
            let served = serve(&sent, piece);
            assert_eq!(served.refused(), bad);
            assert_eq!(served.arrived(), good);
            let expected = {
                let mut fields = get("/fine");
                fields.sort();
                fields
            };
            assert!(served.requests.values().all(|fields| *fields == expected));
        }
    }
}

/// If this fails, h2 may not need the filter any more.
#[test]
fn h2_alone_ends_the_connection() {
    let sent = mixed(literals).0;
    let served = serve_through(&sent, 1 << 20, |stream| stream);
    assert_eq!(served.ended, Some(PROTOCOL_ERROR));
}

#[test]
fn the_table_of_fields_is_right_after_a_malformed_head() {
    let mut first = get(b"/\xff");
    first.push(field("kept", "yes"));
    let mut sent = begun();
    sent.unsplit(whole(1, &entered(&first)));
    // The method, the scheme, the authority, the bad path's name with another path, and the last field, all
    // from the table.
    let mut block = BytesMut::from(&[0x80 | 66, 0x80 | 65, 0x80 | 64, 0x0f, 63 - 15, 5][..]);
    block.extend_from_slice(b"/fine");
    block.extend_from_slice(&[0x80 | 62]);
    sent.unsplit(whole(3, &block));
    // The bad path itself.
    sent.unsplit(whole(5, &[0x80 | 66, 0x80 | 65, 0x80 | 64, 0x80 | 63]));
    // The table is emptied and used anew.
    let mut block = BytesMut::from(&[0x20, 0x3f, 0xe1, 0x1f][..]);
    block.unsplit(entered(&get("/new")));
    sent.unsplit(whole(7, &block));
    sent.unsplit(whole(9, &[0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62]));
    let served = serve(&sent, 1 << 20);
    assert_eq!(served.refused(), [1, 5]);
    assert_eq!(served.arrived(), [3, 7, 9]);
    assert!(served.requests[&3].contains(&field(":path", "/fine")));
    assert!(served.requests[&3].contains(&field("kept", "yes")));
    assert!(served.requests[&9].contains(&field(":path", "/new")));
}

#[test]
fn blocks_of_several_frames_with_padding_and_priority_are_read() {
    for path in [&b"/fine"[..], b"/\xff"] {
        let mut fields = get(path);
        fields.push(field("te", "trailers"));
        let block = entered(&fields);
        let (first, rest) = block.split_at(20);
        let (second, third) = rest.split_at(1);
        let mut padded = BytesMut::from(&[3, 0x80, 0, 0, 7, 1][..]);
        padded.extend_from_slice(first);
        padded.extend_from_slice(&[0; 3]);
        let mut sent = begun();
        sent.unsplit(whole(1, &literals(&get("/"))));
        sent.unsplit(frame(
            FrameKind::Headers,
            END_STREAM | PADDED | PRIORITY,
            3,
            &padded,
        ));
        sent.unsplit(frame(FrameKind::Continuation, 0, 3, second));
        sent.unsplit(frame(FrameKind::Continuation, 0, 3, b""));
        sent.unsplit(frame(FrameKind::Continuation, END_HEADERS, 3, third));
        sent.unsplit(whole(5, &literals(&get("/"))));
        for piece in [1, 7, 1 << 20] {
            let served = serve(&sent, piece);
            if path == b"/fine" {
                assert_eq!(served.arrived(), [1, 3, 5]);
                assert!(served.requests[&3].contains(&field(":path", "/fine")));
            } else {
                assert_eq!(served.arrived(), [1, 5]);
                assert_eq!(served.refused(), [3]);
            }
        }
    }
}

/// What h2 refuses at the first of several frames, and forgets about the rest.
#[test]
fn a_block_that_is_malformed_in_its_first_frame_ends_only_its_own_stream() {
    let mut fields = vec![field("connection", "close")];
    fields.extend(get("/"));
    let block = entered(&fields);
    let (first, second) = block.split_at(40);
    let mut sent = begun();
    sent.unsplit(frame(FrameKind::Headers, END_STREAM, 1, first));
    sent.unsplit(frame(FrameKind::Continuation, END_HEADERS, 1, second));
    sent.unsplit(whole(3, &[0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62]));
    let served = serve(&sent, 1 << 20);
    assert_eq!((served.refused(), served.arrived()), (vec![1], vec![3]));
}

/// h2 resets such a stream without looking at its fields.
#[test]
fn a_stream_that_depends_on_itself_ends_alone() {
    let mut payload = BytesMut::from(&[0, 0, 0, 1, 16][..]);
    payload.unsplit(entered(&get("/")));
    let mut sent = begun();
    let flags = END_STREAM | END_HEADERS | PRIORITY;
    sent.unsplit(frame(FrameKind::Headers, flags, 1, &payload));
    sent.unsplit(whole(3, &[0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62]));
    let served = serve(&sent, 1 << 20);
    assert_eq!((served.refused(), served.arrived()), (vec![1], vec![3]));
}

#[test]
fn malformed_trailers_end_only_their_own_stream() {
    let mut sent = begun();
    for (stream, trailer) in [(1, "good"), (3, "Bad"), (5, "good")] {
        let block = literals(&get("/"));
        sent.unsplit(frame(FrameKind::Headers, END_HEADERS, stream, &block));
        sent.unsplit(frame(FrameKind::Data, 0, stream, b""));
        sent.unsplit(whole(stream, &entered(&[field(trailer, "value")])));
    }
    let served = serve(&sent, 1 << 20);
    assert_eq!(served.arrived(), [1, 3, 5]);
    assert_eq!(served.refused(), [3]);
    assert!(served.requests[&1].contains(&field("good", "value")));
    assert!(served.requests[&5].contains(&field("good", "value")));
}

#[test]
fn what_follows_a_malformed_head_on_its_stream_is_ignored() {
    let mut sent = begun();
    let block = literals(&get(b"/\xff"));
    sent.unsplit(frame(FrameKind::Headers, END_HEADERS, 1, &block));
    sent.unsplit(frame(FrameKind::Data, 0, 1, &[7; 1000]));
    sent.unsplit(frame(FrameKind::WindowUpdate, 0, 1, &[0, 0, 1, 0]));
    sent.unsplit(frame(FrameKind::Data, END_STREAM, 1, b"end"));
    sent.unsplit(whole(3, &literals(&get("/"))));
    let served = serve(&sent, 1 << 20);
    assert_eq!((served.refused(), served.arrived()), (vec![1], vec![3]));
}

#[test]
fn what_cannot_be_decompressed_ends_the_connection() {
    let good = whole(1, &literals(&get("/")));
    let mut malformed = good.clone();
    malformed.unsplit(whole(3, &literals(&get(b"/\xff"))));
    for before in [good, malformed] {
        for block in [
            &[0x80 | 70][..],
            &[0x80],
            &[0x00, 5, b'a'],
            &[0x00, 1, b'a', 0x81, 0x00],
            &[0x82, 0x20],
            &[0x3f, 0xe2, 0x1f],
        ] {
            let mut sent = begun();
            sent.extend_from_slice(&before);
            sent.unsplit(whole(7, block));
            sent.unsplit(whole(9, &literals(&get("/"))));
            let served = serve(&sent, 1 << 20);
            assert_eq!(served.ended, Some(PROTOCOL_ERROR), "{block:?}");
            assert!(!served.arrived().contains(&9), "{block:?}");
        }
    }
}

#[test]
fn broken_framing_ends_the_connection() {
    let block = literals(&get("/"));
    let headers = |flags, payload: &[u8]| frame(FrameKind::Headers, flags, 1, payload);
    let continuation = |stream| frame(FrameKind::Continuation, END_HEADERS, stream, b"");
    let whole_again = whole(3, &block);
    for broken in [
        continuation(1),
        [headers(0, &block), continuation(3)].concat()[..].into(),
        [headers(0, &block), whole_again.clone()].concat()[..].into(),
        headers(END_HEADERS | PADDED, b""),
        headers(END_HEADERS | PADDED, &[9, 0]),
        headers(END_HEADERS | PRIORITY, &[0; 4]),
        headers(END_HEADERS, &vec![0; LIMITS.frame + 1]),
        frame(FrameKind::PushPromise, END_HEADERS, 1, &[0, 0, 0, 2]),
        whole(0, &block),
    ] {
        let mut sent = begun();
        sent.unsplit(broken);
        sent.unsplit(whole(5, &block));
        for piece in [1, 1 << 20] {
            let served = serve(&sent, piece);
            assert!(served.ended.is_some_and(|error| error != 0), "{served:?}");
            assert_eq!(served.arrived(), []);
        }
    }
}

#[test]
fn an_endless_block_ends_the_connection() {
    let mut sent = begun();
    sent.unsplit(frame(FrameKind::Headers, 0, 1, b""));
    for _ in 0..100 {
        sent.unsplit(frame(FrameKind::Continuation, 0, 1, b""));
    }
    let served = serve(&sent, 1 << 20);
    assert_eq!(served.ended, Some(ENHANCE_YOUR_CALM));
}

/// One byte of a block can name an entry of thousands of bytes.
#[test]
fn a_head_that_grows_when_it_is_written_anew_ends_only_its_own_stream() {
    let large = "x".repeat(3000);
    let mut malformed = get(b"/\xff");
    malformed.push(field("large", &large));
    let mut sent = begun();
    sent.unsplit(whole(1, &entered(&malformed)));
    let mut block = literals(&get("/"));
    block.extend_from_slice(&[0x80 | 62; 2]);
    sent.unsplit(whole(3, &block));
    block.extend_from_slice(&[0x80 | 62; 10_000]);
    sent.unsplit(whole(5, &block));
    sent.unsplit(whole(7, &literals(&get("/"))));
    let served = serve(&sent, 1 << 20);
    assert_eq!(
        (served.refused(), served.arrived()),
        (vec![1, 5], vec![3, 7])
    );
    assert_eq!(served.requests[&3].len(), 6);
}
