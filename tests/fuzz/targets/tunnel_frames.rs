//! What a peer sends through a tunnel, in pieces of any size, to either side. Whatever it is, the work and the
//! memory are bounded, the account gets back all that was drawn, and no stream carries what was not sent on it.

#![no_main]

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ambit_account::NodeAccount;
use ambit_fuzz::ensure_linear;
use ambit_tunnel::{Incoming, KeepAlive, PlainWire, Stream, accept, connect};
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, LocalOptions};

/// What a connection may draw: its streams, with the window of a peer that does not know the settings.
const MOST: usize = 1024 * (64 << 10);

const KEEP: KeepAlive = KeepAlive {
    every: Duration::from_secs(1),
    timeout: Duration::from_secs(1),
};

/// The begin of what a well-behaved client sends.
const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    is_client: bool,
    begins_well: bool,
    piece: u8,
    bytes: &'a [u8],
}

/// Gives bytes in pieces, and takes everything.
struct Peer<'a> {
    bytes: &'a [u8],
    piece: usize,
}

impl AsyncRead for Peer<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let length = self.piece.min(self.bytes.len()).min(buffer.remaining());
        let (piece, rest) = self.bytes.split_at(length);
        buffer.put_slice(piece);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fuzz_target!(|input: Input<'_>| {
    ensure_linear(input.bytes, |bytes| run(&input, bytes));
    run(&input, input.bytes);
});

fn run(input: &Input<'_>, bytes: &[u8]) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build_local(LocalOptions::default())
        .expect("a runtime");
    let mut all = Vec::new();
    if input.begins_well {
        let skipped = if input.is_client { 24 } else { 0 };
        all.extend_from_slice(&BEGIN[skipped..]);
    }
    all.extend_from_slice(bytes);
    let peer = Peer {
        bytes: &all,
        piece: usize::from(input.piece.max(1)),
    };
    let node = NodeAccount::new(1 << 30);
    runtime.block_on(async {
        if input.is_client {
            let (opener, mut connection) = connect(PlainWire::new(peer), node.pod(), KEEP);
            let streams: Vec<_> = (0..3).map(|_| opener.open("10.0.0.1:80", "")).collect();
            let _ = connection.next().await;
            drop(streams);
        } else {
            serve(PlainWire::new(peer), &node).await;
        }
    });
    assert_eq!(node.usage().in_use, 0, "everything was given back");
}

async fn serve(wire: PlainWire<Peer<'_>>, node: &NodeAccount) {
    let mut connection = accept(wire, node.pod(), KEEP);
    let mut streams: Vec<Stream> = Vec::new();
    while let Ok(Some(incoming)) = connection.next().await {
        match incoming {
            Incoming::Request(head, responder) if head.method == "CONNECT" => {
                streams.push(responder.accept());
            }
            Incoming::Request(_, responder) => responder.refuse(400),
            Incoming::NoMemory(_) => {}
        }
        assert!(node.usage().in_use <= MOST);
    }
}
