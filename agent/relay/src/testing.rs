//! What the tests of both relays share.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::timeout;

/// How long a test waits for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(test: impl Future<Output = ()>) {
    run_within(PATIENCE, test);
}

/// With a limit of its own, as with a paused clock.
pub(crate) fn run_within(limit: Duration, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let bounded = async { timeout(limit, test).await.expect("in time") };
    LocalSet::new().block_on(&runtime, bounded);
}

/// Writes until nothing has been taken for a while. Returns how much was.
pub(crate) async fn fill(stream: &mut TcpStream) -> usize {
    let (mut sent, piece) = (0, vec![7; 64 << 10]);
    while let Ok(written) = timeout(Duration::from_millis(500), stream.write(&piece)).await {
        sent += written.unwrap();
    }
    sent
}
