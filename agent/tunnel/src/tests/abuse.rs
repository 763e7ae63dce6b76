//! What a hostile or broken peer may send.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::TunnelFailure;
use crate::frame::{
    ACK, DEFAULT_WINDOW, END_HEADERS, END_STREAM, ErrorCode, FrameKind, INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW, PADDED, PREFACE, StreamId, put_frame, put_reset, put_settings,
    put_window_update,
};
use crate::hpack::write_connect;

/// What a well-behaved client sends first.
fn begun() -> BytesMut {
    let mut out = BytesMut::from(&PREFACE[..]);
    put_settings(&mut out, &[]);
    out
}

fn put_connect(out: &mut BytesMut, id: u32, flags: u8) {
    let mut block = BytesMut::new();
    write_connect(&mut block, "10.0.0.1:80", "");
    put_frame(out, FrameKind::Headers, flags, StreamId(id), &block);
}

fn frame(out: &mut BytesMut, kind: FrameKind, flags: u8, id: u32, payload: &[u8]) {
    put_frame(out, kind, flags, StreamId(id), payload);
}

/// Sends bytes to a server that accepts every stream, keeps it, and reads nothing. Returns how the
/// connection ended, if it did.
async fn sent(bytes: &[u8]) -> Option<TunnelFailure> {
    let (mut near, far) = duplex(NETWORK);
    let mut connection = accept(PlainWire::new(far), ample(), KEEP);
    let serving = async {
        let mut streams = Vec::new();
        loop {
            match connection.next().await {
                Ok(Some(Incoming::Request(_, responder))) => streams.push(responder.accept()),
                Ok(Some(Incoming::NoMemory(_))) => {}
                Ok(None) => return None,
                Err(failure) => return Some(failure),
            }
        }
    };
    let sending = async {
        let (mut read, mut write) = tokio::io::split(&mut near);
        let drain = async { while read.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {} };
        let _ = tokio::join!(
            write.write_all(bytes),
            tokio::time::timeout(KEEP.every / 2, drain)
        );
    };
    tokio::select! {
        ended = serving => ended,
        () = sending => None,
    }
}

fn ends_with(code: ErrorCode, bytes: &[u8]) {
    run(async || {
        let ended = sent(bytes).await.expect("the connection ends");
        assert_eq!(ended.code(), code, "{ended}");
    });
}

fn goes_on(bytes: &[u8]) {
    run(async || {
        let ended = sent(bytes).await;
        assert!(ended.is_none(), "{ended:?}");
    });
}

#[test]
fn floods_end_the_connection() {
    let flood = |one: &dyn Fn(&mut BytesMut, u32)| {
        let mut out = begun();
        put_connect(&mut out, 1, END_HEADERS);
        for number in 0..5000 {
            one(&mut out, number);
        }
        ends_with(ErrorCode::ENHANCE_YOUR_CALM, &out);
    };
    flood(&|out, _| frame(out, FrameKind::Ping, 0, 0, &[0; 8]));
    flood(&|out, _| frame(out, FrameKind::Ping, ACK, 0, &[0; 8]));
    flood(&|out, number| put_settings(out, &[(INITIAL_WINDOW_SIZE, number)]));
    flood(&|out, _| frame(out, FrameKind::Settings, ACK, 0, &[]));
    flood(&|out, _| frame(out, FrameKind::Data, 0, 1, &[]));
    flood(&|out, _| frame(out, FrameKind::Priority, 0, 1, &[0; 5]));
    flood(&|out, _| frame(out, FrameKind::Unknown, 0, 1, &[0; 5]));
    flood(&|out, _| put_window_update(out, StreamId(1), 1));
    flood(&|out, number| put_connect(out, 2 * number + 3, END_HEADERS | END_STREAM));
}

/// CVE-2023-44487.
#[test]
fn rapid_resets_end_the_connection() {
    let mut out = begun();
    for number in 0..5000 {
        put_connect(&mut out, 2 * number + 1, END_HEADERS);
        put_reset(&mut out, StreamId(2 * number + 1), ErrorCode::CANCEL);
    }
    ends_with(ErrorCode::ENHANCE_YOUR_CALM, &out);
}

/// CVE-2024-27316.
#[test]
fn endless_heads_end_the_connection() {
    let mut out = begun();
    put_connect(&mut out, 1, 0);
    for _ in 0..100 {
        frame(&mut out, FrameKind::Continuation, 0, 1, &[]);
    }
    ends_with(ErrorCode::ENHANCE_YOUR_CALM, &out);
    let mut out = begun();
    put_connect(&mut out, 1, 0);
    for _ in 0..3 {
        frame(&mut out, FrameKind::Continuation, 0, 1, &[0; 16_000]);
    }
    ends_with(ErrorCode::ENHANCE_YOUR_CALM, &out);
    let mut out = begun();
    frame(
        &mut out,
        FrameKind::Headers,
        END_HEADERS,
        1,
        &vec![0; 200_000],
    );
    ends_with(ErrorCode::ENHANCE_YOUR_CALM, &out);
}

/// A small block that names a large entry of the table over and over.
#[test]
fn a_block_that_unfolds_to_megabytes_keeps_none_of_them() {
    let mut out = begun();
    let mut block = BytesMut::new();
    write_connect(&mut block, "10.0.0.1:80", "");
    block.extend_from_slice(&[0x40, 1, b'a', 0x7f, 0x81, 0x1e]);
    block.extend_from_slice(&[b'x'; 127 + 1 + (0x1e << 7)]);
    block.extend_from_slice(&[0xbe; 8000]);
    frame(&mut out, FrameKind::Headers, END_HEADERS, 1, &block);
    goes_on(&out);
}

#[test]
fn broken_rules_end_the_connection() {
    let broken = |code, break_it: &dyn Fn(&mut BytesMut)| {
        let mut out = begun();
        put_connect(&mut out, 1, END_HEADERS);
        break_it(&mut out);
        ends_with(code, &out);
    };
    let protocol = ErrorCode::PROTOCOL_ERROR;
    let size = ErrorCode::FRAME_SIZE_ERROR;
    ends_with(protocol, b"GET / HTTP/1.1\r\n\r\n");
    let mut out = BytesMut::from(&PREFACE[..]);
    frame(&mut out, FrameKind::Ping, 0, 0, &[0; 8]);
    ends_with(protocol, &out);
    broken(protocol, &|out| put_connect(out, 2, END_HEADERS));
    broken(protocol, &|out| {
        frame(out, FrameKind::PushPromise, END_HEADERS, 1, &[0; 4])
    });
    broken(protocol, &|out| {
        frame(out, FrameKind::Continuation, END_HEADERS, 1, &[])
    });
    broken(protocol, &|out| frame(out, FrameKind::Data, 0, 3, b"idle"));
    broken(protocol, &|out| frame(out, FrameKind::Data, 0, 0, b"none"));
    broken(protocol, &|out| {
        frame(out, FrameKind::Data, PADDED, 1, &[9, 1, 2])
    });
    broken(protocol, &|out| put_window_update(out, StreamId(0), 0));
    broken(protocol, &|out| put_window_update(out, StreamId(5), 1));
    broken(protocol, &|out| frame(out, FrameKind::Ping, 0, 1, &[0; 8]));
    broken(protocol, &|out| {
        frame(out, FrameKind::GoAway, 0, 1, &[0; 8])
    });
    broken(protocol, &|out| {
        frame(out, FrameKind::Priority, 0, 0, &[0; 5])
    });
    broken(protocol, &|out| put_settings(out, &[(5, 100)]));
    broken(protocol, &|out| {
        put_connect(out, 3, 0);
        frame(out, FrameKind::Ping, 0, 0, &[0; 8]);
    });
    broken(size, &|out| frame(out, FrameKind::Ping, 0, 0, &[0; 7]));
    broken(size, &|out| frame(out, FrameKind::Settings, 0, 0, &[0; 5]));
    broken(size, &|out| {
        frame(out, FrameKind::Settings, ACK, 0, &[0; 6])
    });
    broken(size, &|out| {
        frame(out, FrameKind::ResetStream, 0, 1, &[0; 3])
    });
    broken(size, &|out| frame(out, FrameKind::Data, PADDED, 1, &[]));
    broken(size, &|out| {
        frame(out, FrameKind::Data, 0, 1, &vec![0; 300_000])
    });
    broken(ErrorCode::FLOW_CONTROL_ERROR, &|out| {
        put_window_update(out, StreamId(0), LARGEST_WINDOW);
    });
    broken(ErrorCode::FLOW_CONTROL_ERROR, &|out| {
        put_settings(out, &[(INITIAL_WINDOW_SIZE, LARGEST_WINDOW + 1)]);
    });
    broken(ErrorCode::FLOW_CONTROL_ERROR, &|out| {
        frame(
            out,
            FrameKind::Data,
            0,
            1,
            &vec![0; DEFAULT_WINDOW as usize + 1],
        );
    });
    broken(ErrorCode::COMPRESSION_ERROR, &|out| {
        frame(out, FrameKind::Headers, END_HEADERS, 3, &[0xff; 3]);
    });
    broken(ErrorCode::STREAM_CLOSED, &|out| {
        frame(out, FrameKind::Data, END_STREAM, 1, &[]);
        frame(out, FrameKind::Data, 0, 1, b"more");
    });
}

#[test]
fn what_is_unusual_and_right_is_taken() {
    let mut out = begun();
    put_connect(&mut out, 1, 0);
    frame(&mut out, FrameKind::Continuation, END_HEADERS, 1, &[]);
    frame(&mut out, FrameKind::Data, PADDED, 1, &[2, b'a', 0, 0]);
    frame(&mut out, FrameKind::Data, PADDED, 1, &[0]);
    frame(&mut out, FrameKind::Unknown, 0, 99, b"whatever");
    frame(&mut out, FrameKind::Priority, 0, 7, &[0; 5]);
    put_settings(&mut out, &[(0x99, 5), (INITIAL_WINDOW_SIZE, 0)]);
    put_settings(&mut out, &[(INITIAL_WINDOW_SIZE, 1 << 20)]);
    put_reset(&mut out, StreamId(1), ErrorCode::CANCEL);
    frame(&mut out, FrameKind::Data, 0, 1, b"late");
    goes_on(&out);
}

/// A stream's errors end that stream only.
#[test]
fn a_malformed_head_resets_its_stream_only() {
    let mut out = begun();
    let mut block = BytesMut::new();
    write_connect(&mut block, "10.0.0.1:80", "");
    block.extend_from_slice(&[0, 1, b'A', 1, b'b']);
    frame(&mut out, FrameKind::Headers, END_HEADERS, 1, &block);
    put_connect(&mut out, 3, END_HEADERS);
    put_window_update(&mut out, StreamId(3), 0);
    put_connect(&mut out, 5, END_HEADERS);
    put_window_update(&mut out, StreamId(5), LARGEST_WINDOW);
    put_connect(&mut out, 7, END_HEADERS);
    frame(&mut out, FrameKind::Headers, END_HEADERS, 7, &[]);
    goes_on(&out);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// However the bytes are cut, they mean the same.
    #[test]
    fn pieces_of_any_size_are_read_alike(cuts in proptest::collection::vec(1_usize..40, 1..60)) {
        run(async || {
            let mut out = begun();
            put_connect(&mut out, 1, END_HEADERS);
            frame(&mut out, FrameKind::Data, PADDED, 1, &[3, b'a', b'b', b'c', 0, 0, 0]);
            frame(&mut out, FrameKind::Data, 0, 1, &payload(200));
            frame(&mut out, FrameKind::Data, END_STREAM, 1, &[]);
            let (near, far) = duplex(NETWORK);
            let mut requests = requests(accept(PlainWire::new(far), ample(), KEEP));
            let (_read, mut write) = tokio::io::split(near);
            let mut rest = &out[..];
            for cut in cuts.iter().cycle() {
                let (piece, left) = rest.split_at(rest.len().min(*cut));
                write.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
                rest = left;
                if rest.is_empty() {
                    break;
                }
            }
            let stream = requests.recv().await.expect("a request").accept();
            let (received, end) = receive(&stream).await;
            assert_eq!(received, [b"abc", &payload(200)[..]].concat());
            assert!(end.is_ok());
        });
    }
}
