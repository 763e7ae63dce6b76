//! Streams between two sides of this crate.

use std::cell::Cell;
use std::rc::Rc;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::time::sleep;

use super::*;
use crate::frame::{
    ACK, END_HEADERS, FRAME_HEAD, FrameHead, FrameKind, INITIAL_WINDOW_SIZE, PREFACE, StreamId,
    put_frame, put_settings,
};
use crate::hpack::write_connect;
use crate::session::FIRST_WINDOW;
use crate::{Delivery, ErrorCode, OpenError, TunnelFailure};

const MIB: usize = 1 << 20;

#[test]
fn both_ways_carry_all_and_end_by_themselves() {
    run(async || {
        let mut pair = Pair::new();
        let (near, far) = pair.stream().await;
        let (up, down) = (payload(3 * MIB), payload(2 * MIB + 1));
        let client = async {
            send(&near, &up).await.unwrap();
            near.finish();
        };
        let server = async {
            send(&far, &down).await.unwrap();
            far.finish();
        };
        let (_, _, at_far, at_near) = tokio::join!(client, server, receive(&far), receive(&near));
        assert!(at_far.0 == up && at_far.1.is_ok());
        assert!(at_near.0 == down && at_near.1.is_ok());
    });
}

#[test]
fn streams_that_are_not_read_hold_up_no_other() {
    run(async || {
        let mut pair = Pair::new();
        let mut unread = Vec::new();
        for _ in 0..200 {
            let (near, far) = pair.stream().await;
            spawn_local(async move { drop(send(&far, &payload(4 * MIB)).await) });
            unread.push(near);
        }
        sleep(Duration::from_secs(1)).await;
        let (near, far) = pair.stream().await;
        spawn_local(async move {
            send(&far, &payload(4 * MIB)).await.unwrap();
            far.finish();
        });
        let (received, end) = receive(&near).await;
        assert!(received == payload(4 * MIB) && end.is_ok());
    });
}

/// Passes on what comes, and counts what comes without payload.
async fn pass_on(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    bare: Rc<Cell<usize>>,
) {
    let mut buffer = vec![0; NETWORK];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let mut has_payload = false;
        let mut rest = &buffer[..length];
        while let Some((head, after)) = rest.split_first_chunk::<FRAME_HEAD>() {
            let head = FrameHead::read(*head);
            has_payload |= head.kind == FrameKind::Data;
            rest = after.get(head.length..).unwrap_or_default();
        }
        bare.set(bare.get() + usize::from(!has_payload));
        to.write_all(&buffer[..length]).await.unwrap();
    }
}

#[test]
fn while_both_sides_send_their_windows_are_raised_along_with_payload() {
    run(async || {
        let ((near, near_end), (far, far_end)) = (duplex(NETWORK), duplex(NETWORK));
        let bare = Rc::new(Cell::new(0));
        let (near_end, far_end) = (split(near_end), split(far_end));
        spawn_local(pass_on(near_end.0, far_end.1, Rc::clone(&bare)));
        spawn_local(pass_on(far_end.0, near_end.1, Rc::clone(&bare)));
        let (opener, connection) = connect(PlainWire::new(near), ample(), KEEP);
        spawn_local(serve(connection));
        let mut requests = requests(accept(PlainWire::new(far), ample(), KEEP));
        let near = opener.open("10.0.0.1:80", "").unwrap();
        let far = requests.recv().await.unwrap().accept();
        assert_eq!(near.answered().await.unwrap(), 200);
        sleep(Duration::from_secs(1)).await;
        bare.set(0);
        for _ in 0..100 {
            for (from, to) in [(&near, &far), (&far, &near)] {
                send(from, &payload(1000)).await.unwrap();
                let mut buffer = [0; 1000];
                let mut into = ReadBuf::new(&mut buffer);
                while into.remaining() > 0 {
                    poll_fn(|context| to.poll_read(context, &mut into))
                        .await
                        .unwrap();
                }
                // The one that has read it answers a moment later.
                sleep(Duration::from_millis(1)).await;
            }
        }
        assert_eq!(bare.get(), 0);
    });
}

#[test]
fn what_was_sent_arrives_before_a_reset() {
    run(async || {
        let mut pair = Pair::new();
        let (near, far) = pair.stream().await;
        send(&far, &payload(10_000)).await.unwrap();
        far.reset(ErrorCode::CONNECT_ERROR);
        drop(far);
        sleep(Duration::from_secs(10)).await;
        let (received, end) = receive(&near).await;
        assert_eq!(received, payload(10_000));
        assert!(matches!(
            end,
            Err(StreamFailure::Reset(ErrorCode::CONNECT_ERROR))
        ));
    });
}

#[test]
fn a_stream_that_is_dropped_is_over_at_once() {
    run(async || {
        let mut pair = Pair::new();
        let (near, far) = pair.stream().await;
        send(&far, &payload(10_000)).await.unwrap();
        drop(far);
        sleep(Duration::from_secs(10)).await;
        let (received, end) = receive(&near).await;
        assert_eq!(received, []);
        assert!(matches!(end, Err(StreamFailure::Reset(ErrorCode::CANCEL))));
    });
}

/// "I need no more of the request" (RFC 9113, section 8.1).
#[test]
fn a_side_that_has_ended_may_stop_the_other() {
    run(async || {
        let mut pair = Pair::new();
        let (near, far) = pair.stream().await;
        send(&far, &payload(10_000)).await.unwrap();
        far.finish();
        far.reset(ErrorCode::NO_ERROR);
        sleep(Duration::from_secs(10)).await;
        assert!(send(&near, b"more").await.is_err());
        let (received, end) = receive(&near).await;
        assert!(received == payload(10_000) && end.is_ok());
    });
}

#[test]
fn what_a_lost_tunnel_has_brought_arrives() {
    run(async || {
        let (near, far) = duplex(NETWORK);
        let (opener, connection) = connect(PlainWire::new(near), ample(), KEEP);
        spawn_local(serve(connection));
        let mut connection = accept(PlainWire::new(far), ample(), KEEP);
        let near = opener.open("10.0.0.1:80", "").unwrap();
        let Ok(Some(Incoming::Request(head, responder))) = connection.next().await else {
            panic!("a request");
        };
        assert_eq!(head.authority.as_deref(), Some("10.0.0.1:80"));
        let far = responder.accept();
        send(&far, b"the last words").await.unwrap();
        let a_moment = Duration::from_secs(1);
        let _ = tokio::time::timeout(a_moment, connection.next()).await;
        drop(connection);
        sleep(a_moment).await;
        let (received, end) = receive(&near).await;
        assert_eq!(received, b"the last words");
        assert!(matches!(end, Err(StreamFailure::Tunnel(_))), "{end:?}");
    });
}

#[test]
fn early_bytes_wait_for_the_answer() {
    run(async || {
        let mut pair = Pair::new();
        let near = pair.opener.open("10.0.0.1:80", "").unwrap();
        send(&near, b"early").await.unwrap();
        let responder = pair.requests.recv().await.unwrap();
        sleep(Duration::from_secs(1)).await;
        let far = responder.accept();
        near.finish();
        assert_eq!(receive(&far).await.0, b"early");
        let near = pair.opener.open("10.0.0.1:80", "").unwrap();
        send(&near, b"early").await.unwrap();
        pair.requests.recv().await.unwrap().refuse(401);
        assert_eq!(near.answered().await.unwrap(), 401);
    });
}

#[test]
fn a_window_that_settings_have_lowered_is_raised_again() {
    run(async || {
        let (near, far) = duplex(NETWORK);
        let (mut from_server, mut to_server) = tokio::io::split(near);
        let mut requests = requests(accept(PlainWire::new(far), ample(), KEEP));
        let mut out = BytesMut::from(&PREFACE[..]);
        put_settings(&mut out, &[]);
        let mut block = BytesMut::new();
        write_connect(&mut block, "10.0.0.1:80", "");
        put_frame(
            &mut out,
            FrameKind::Headers,
            END_HEADERS,
            StreamId(1),
            &block,
        );
        put_frame(
            &mut out,
            FrameKind::Data,
            0,
            StreamId(1),
            &payload(FIRST_WINDOW),
        );
        to_server.write_all(&out).await.unwrap();
        let stream = requests.recv().await.unwrap().accept();
        let mut buffer = vec![0; FIRST_WINDOW];
        let mut into = ReadBuf::new(&mut buffer);
        while into.remaining() > 0 {
            poll_fn(|context| stream.poll_read(context, &mut into))
                .await
                .unwrap();
        }
        // Only now it hears of the smaller window.
        let mut out = BytesMut::new();
        put_frame(
            &mut out,
            FrameKind::Settings,
            ACK,
            StreamId::CONNECTION,
            &[],
        );
        to_server.write_all(&out).await.unwrap();
        loop {
            let mut head = [0; FRAME_HEAD];
            from_server.read_exact(&mut head).await.unwrap();
            let head = FrameHead::read(head);
            from_server
                .read_exact(&mut vec![0; head.length])
                .await
                .unwrap();
            if head.kind == FrameKind::WindowUpdate && head.stream == StreamId(1) {
                break;
            }
        }
    });
}

/// After the acknowledgement, the peer counts by its new windows.
#[test]
fn settings_are_acknowledged_after_what_was_sent_by_the_old_ones() {
    run(async || {
        let (near, mut far) = duplex(NETWORK);
        let mut out = BytesMut::new();
        put_settings(&mut out, &[(INITIAL_WINDOW_SIZE, 1)]);
        far.write_all(&out).await.unwrap();
        let (opener, connection) = connect(PlainWire::new(near), ample(), KEEP);
        let stream = opener.open("10.0.0.1:80", "").unwrap();
        send(&stream, &payload(10_000)).await.unwrap();
        spawn_local(serve(connection));
        far.read_exact(&mut [0; PREFACE.len()]).await.unwrap();
        let mut carried = 0;
        loop {
            let mut head = [0; FRAME_HEAD];
            far.read_exact(&mut head).await.unwrap();
            let head = FrameHead::read(head);
            far.read_exact(&mut vec![0; head.length]).await.unwrap();
            match head.kind {
                FrameKind::Data => carried += head.length,
                FrameKind::Settings if head.has(ACK) => break,
                _ => {}
            }
        }
        assert_eq!(carried, 10_000);
    });
}

#[test]
fn windows_are_charged_grow_for_readers_that_keep_up_and_are_given_back() {
    run(async || {
        let (near_memory, far_memory) = (ample(), ample());
        let mut pair = Pair::with(near_memory.clone(), far_memory.clone());
        let (near, far) = pair.stream().await;
        let at_first = near_memory.usage().in_use;
        assert!((16 << 10..64 << 10).contains(&at_first), "{at_first}");
        spawn_local(async move {
            send(&far, &payload(32 * MIB)).await.unwrap();
            far.finish();
        });
        let mut most = 0;
        let watch = near_memory.clone();
        let reading = async { receive(&near).await.0.len() };
        let watching = async {
            loop {
                most = most.max(watch.usage().in_use);
                tokio::task::yield_now().await;
            }
        };
        let received = tokio::select! {
            received = reading => received,
            () = watching => 0,
        };
        assert_eq!(received, 32 * MIB);
        assert!((128 << 10..=8 * MIB).contains(&most), "{most}");
        drop(near);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(
            (near_memory.usage().in_use, far_memory.usage().in_use),
            (0, 0)
        );
    });
}

#[test]
fn a_stream_without_memory_is_refused_and_the_others_go_on() {
    run(async || {
        let mut pair = Pair::with(ample(), memory(2 * MIB));
        let mut open = Vec::new();
        let refused = loop {
            let near = pair.opener.open("10.0.0.1:80", "").unwrap();
            match near.answered().now_or_answer(&mut pair.requests).await {
                Some(far) => open.push((near, far)),
                None => break near.answered().await.unwrap(),
            }
            assert!(open.len() <= 128, "more than the account has");
        };
        assert_eq!(refused, 503);
        assert!(open.len() > 8, "{}", open.len());
        let (near, far) = open.pop().unwrap();
        send(&near, b"still here").await.unwrap();
        near.finish();
        assert_eq!(receive(&far).await.0, b"still here");
    });
}

/// Accepts the request if there is one before the answer.
trait NowOrAnswer {
    async fn now_or_answer(
        self,
        requests: &mut tokio::sync::mpsc::UnboundedReceiver<Responder>,
    ) -> Option<Stream>;
}

impl<F: Future<Output = Result<u16, StreamFailure>>> NowOrAnswer for F {
    async fn now_or_answer(
        self,
        requests: &mut tokio::sync::mpsc::UnboundedReceiver<Responder>,
    ) -> Option<Stream> {
        tokio::select! {
            _ = self => None,
            responder = requests.recv() => responder.map(Responder::accept),
        }
    }
}

#[test]
fn an_opener_without_memory_says_so() {
    run(async || {
        let pair = Pair::with(memory(0), ample());
        let refused = pair.opener.open("10.0.0.1:80", "");
        assert!(matches!(refused, Err(OpenError::Memory(_))));
    });
}

#[test]
fn a_server_that_leaves_takes_what_was_on_its_way_and_then_nothing() {
    run(async || {
        let (near, far) = duplex(NETWORK);
        let (opener, connection) = connect(PlainWire::new(near), ample(), KEEP);
        let client = spawn_local(serve(connection));
        let mut connection = accept(PlainWire::new(far), ample(), KEEP);
        let first = opener.open("10.0.0.1:80", "").unwrap();
        let Ok(Some(Incoming::Request(_, responder))) = connection.next().await else {
            panic!("a request");
        };
        let far = responder.accept();
        connection.leave();
        let on_its_way = opener.open("10.0.0.1:80", "").unwrap();
        let Ok(Some(Incoming::Request(_, responder))) = connection.next().await else {
            panic!("the request that was on its way");
        };
        let other = responder.accept();
        let server = spawn_local(async move { connection.next().await.map(|next| next.is_none()) });
        assert_eq!(on_its_way.answered().await.unwrap(), 200);
        sleep(Duration::from_secs(1)).await;
        assert!(!opener.takes_streams());
        assert!(matches!(
            opener.open("10.0.0.1:80", ""),
            Err(OpenError::NotOpen)
        ));
        send(&far, b"goes on").await.unwrap();
        far.finish();
        assert_eq!(receive(&first).await.0, b"goes on");
        drop((first, far, on_its_way, other));
        client.await.unwrap();
        assert!(
            server.await.unwrap().unwrap(),
            "both sides end when no stream is left"
        );
    });
}

#[test]
fn a_silent_peer_is_given_up_and_a_slow_one_is_not() {
    run(async || {
        let (near, _far) = duplex(NETWORK);
        let (_opener, mut connection) = connect(PlainWire::new(near), ample(), KEEP);
        let ended = connection.next().await;
        assert!(matches!(ended, Err(TunnelFailure::Silent)), "{ended:?}");
        let mut pair = Pair::new();
        let (near, far) = pair.stream().await;
        sleep(100 * KEEP.every).await;
        send(&near, b"a").await.unwrap();
        near.finish();
        assert_eq!(receive(&far).await.0, b"a");
    });
}

#[test]
fn a_sink_that_is_full_or_broken_is_reported() {
    run(async || {
        let mut pair = Pair::new();
        for (kind, is_blocked) in [
            (io::ErrorKind::WouldBlock, true),
            (io::ErrorKind::BrokenPipe, false),
        ] {
            let (near, far) = pair.stream().await;
            far.attach(Rc::new(Wall(kind)));
            send(&near, b"a").await.unwrap();
            let delivery = poll_fn(|context| far.poll_delivery(context)).await;
            assert_eq!(matches!(delivery, Delivery::Blocked), is_blocked);
            assert_eq!(matches!(delivery, Delivery::SinkFailed(_)), !is_blocked);
            if !is_blocked {
                // The sender is not held up by what nobody takes.
                send(&near, &payload(MIB)).await.unwrap();
            }
        }
    });
}
