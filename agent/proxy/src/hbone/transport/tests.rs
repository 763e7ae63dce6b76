use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

use super::*;

/// What the wire holds.
const WIRE: usize = 1 << 10;

/// Long enough for whatever would be done at all: the clock leaps.
const LATER: Duration = Duration::from_secs(1);

fn run<T: Future<Output = ()>>(test: impl FnOnce(Transport<DuplexStream>, DuplexStream) -> T) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let (near, far) = duplex(WIRE);
    runtime.block_on(test(Transport::new(near), far));
}

async fn write_and_flush(mut to: Transport<DuplexStream>, data: &[u8]) {
    to.write_all(data).await.unwrap();
    to.flush().await.unwrap();
}

#[test]
fn what_a_turn_writes_is_sent_at_its_end_and_not_by_a_flush() {
    run(async |near, mut far| {
        write_and_flush(near.clone(), b"ab").await;
        let mut received = [0; 3];
        assert!(timeout(LATER, far.read(&mut received)).await.is_err());
        near.sending(write_and_flush(near.clone(), b"c")).await;
        far.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"abc");
    });
}

#[test]
fn what_the_wire_does_not_take_at_once_is_sent_later() {
    run(async |near, mut far| {
        let data = vec![7; 3 * GATHER];
        let writing = near.sending(async {
            write_and_flush(near.clone(), &data).await;
            near.clone().shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        let (_, read) = tokio::join!(writing, far.read_to_end(&mut received));
        read.unwrap();
        assert_eq!(received, data);
    });
}

#[test]
fn what_waits_to_be_sent_is_bounded() {
    run(async |near, _far| {
        let mut to = near.clone();
        let part = [0; 1 << 10];
        let mut taken = 0;
        let endless = near.sending(async {
            loop {
                taken += to.write(&part).await.unwrap();
            }
        });
        assert!(timeout(LATER, endless).await.is_err());
        assert!(taken <= GATHER + WIRE + part.len(), "{taken}");
    });
}

#[test]
fn a_read_takes_what_has_come_and_keeps_the_rest() {
    run(async |mut near, mut far| {
        far.write_all(b"abcdef").await.unwrap();
        let mut part = [0; 4];
        near.read_exact(&mut part).await.unwrap();
        drop(far);
        let mut rest = Vec::new();
        near.read_to_end(&mut rest).await.unwrap();
        assert_eq!((&part[..], &rest[..]), (&b"abcd"[..], &b"ef"[..]));
    });
}

#[test]
fn an_idle_stream_has_no_buffers() {
    run(async |mut near, mut far| {
        far.write_all(b"a").await.unwrap();
        near.read_u8().await.unwrap();
        near.sending(write_and_flush(near.clone(), b"b")).await;
        assert!(timeout(LATER, near.read_u8()).await.is_err());
        let state = near.0.borrow();
        assert_eq!(
            (state.incoming.capacity(), state.outgoing.capacity()),
            (0, 0)
        );
    });
}

#[test]
fn a_failure_to_send_ends_what_waits() {
    run(async |near, far| {
        let waiting = near.sending(async {
            let mut own = near.clone();
            own.write_all(b"a").await.unwrap();
            tokio::task::yield_now().await;
            own.flush().await
        });
        drop(far);
        assert_eq!(waiting.await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    });
}
