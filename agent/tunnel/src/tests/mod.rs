//! Tunnels between this crate and itself, and between it and h2.

mod abuse;
mod model;
mod peers;
mod streams;
mod tls;

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::time::Duration;

use ambit_account::{NodeAccount, PodAccount};
use tokio::io::{DuplexStream, ReadBuf, duplex};
use tokio::task::{LocalSet, spawn_local};

use crate::{
    Connection, Incoming, KeepAlive, Opener, PlainWire, Responder, Stream, StreamFailure, Wire,
    accept, connect,
};

/// What the network between the two sides holds.
const NETWORK: usize = 64 << 10;

const KEEP: KeepAlive = KeepAlive {
    every: Duration::from_secs(20),
    timeout: Duration::from_secs(10),
};

type PlainConnection = Connection<PlainWire<DuplexStream>>;

/// Runs a test with a clock that jumps to the next timer when all tasks wait.
fn run<T: Future<Output = ()>>(test: impl FnOnce() -> T) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let long = Duration::from_secs(24 * 3600);
        tokio::time::timeout(long, test())
            .await
            .expect("the test waits for nothing");
    });
}

fn memory(bytes: usize) -> PodAccount {
    NodeAccount::new(bytes).pod()
}

fn ample() -> PodAccount {
    memory(1 << 30)
}

/// A client and a server of this crate. Both connections run.
struct Pair {
    opener: Opener,
    requests: tokio::sync::mpsc::UnboundedReceiver<Responder>,
}

impl Pair {
    fn new() -> Self {
        Self::with(ample(), ample())
    }

    fn with(near_memory: PodAccount, far_memory: PodAccount) -> Self {
        let (near, far) = duplex(NETWORK);
        let (opener, connection) = connect(PlainWire::new(near), near_memory, KEEP);
        spawn_local(serve(connection));
        Self {
            opener,
            requests: requests(accept(PlainWire::new(far), far_memory, KEEP)),
        }
    }

    /// Opens a stream and accepts it.
    async fn stream(&mut self) -> (Stream, Stream) {
        let near = self
            .opener
            .open("10.0.0.1:80", "for=a")
            .expect("room for a stream");
        let far = self.requests.recv().await.expect("a request").accept();
        assert_eq!(near.answered().await.expect("an answer"), 200);
        (near, far)
    }
}

async fn serve(mut connection: PlainConnection) {
    while let Ok(Some(_)) = connection.next().await {}
}

fn requests<W: Wire + 'static>(
    mut connection: Connection<W>,
) -> tokio::sync::mpsc::UnboundedReceiver<Responder> {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    spawn_local(async move {
        while let Ok(Some(incoming)) = connection.next().await {
            match incoming {
                Incoming::Request(_, responder) => drop(sender.send(responder)),
                Incoming::NoMemory(_) => {}
            }
        }
    });
    receiver
}

async fn send(stream: &Stream, mut data: &[u8]) -> Result<(), StreamFailure> {
    while !data.is_empty() {
        let parts = [IoSlice::new(data)];
        let sent = poll_fn(|context| stream.poll_send(context, &parts)).await?;
        data = &data[sent..];
    }
    Ok(())
}

/// Reads to the end, or to a failure.
async fn receive(stream: &Stream) -> (Vec<u8>, Result<(), StreamFailure>) {
    let mut received = Vec::new();
    loop {
        let mut buffer = vec![0; 16 << 10];
        let mut into = ReadBuf::new(&mut buffer);
        match poll_fn(|context| stream.poll_read(context, &mut into)).await {
            Ok(()) if into.filled().is_empty() => return (received, Ok(())),
            Ok(()) => received.extend_from_slice(into.filled()),
            Err(failure) => return (received, Err(failure)),
        }
    }
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index / 7) as u8).collect()
}

/// A sink that takes nothing, or fails.
struct Wall(io::ErrorKind);

impl crate::Sink for Wall {
    fn write(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(self.0.into())
    }
}
