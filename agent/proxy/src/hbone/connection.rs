//! A tunnel's connection to a peer, and the streams that share it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ambit_account::PodAccount;
use ambit_tunnel::{KeepAlive, Opener, TunnelFailure, Wire, connect};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::shard::turns::Budget;

/// How many streams share a connection before another is opened. A peer may allow fewer.
const STREAMS: usize = 100;

/// The age at which a connection stops taking new streams.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// How long a connection without streams is kept.
const IDLE: Duration = Duration::from_secs(90);

/// How often it is looked whether a connection is idle.
const IDLE_CHECK: Duration = Duration::from_secs(20);

/// How long a peer may be silent.
const KEEP_ALIVE: KeepAlive = KeepAlive {
    every: Duration::from_secs(20),
    timeout: Duration::from_secs(10),
};

/// A tunnel's connection to a peer. Dropping it lets its streams go on.
pub(super) struct TunnelConnection {
    opener: Opener,
    driver: AbortHandle,
    opened: Instant,
    epoch: u64,
}

impl TunnelConnection {
    /// Begins HTTP/2 on a wire whose peer is verified. `epoch` is that of the certificate with which the wire
    /// was opened. What waits is charged to `memory`. The connection runs on `budget`.
    pub(super) fn open<W: Wire + 'static>(
        peer: SocketAddr,
        wire: W,
        memory: PodAccount,
        epoch: u64,
        budget: &Rc<Budget>,
    ) -> Self {
        let (opener, mut connection) = connect(wire, memory, KEEP_ALIVE);
        let watched = opener.clone();
        let driving = async move {
            let mut is_idle = std::pin::pin!(idle(&watched));
            let mut is_leaving = false;
            let ended = loop {
                tokio::select! {
                    ended = connection.next() => match ended {
                        // A server opens no streams.
                        Ok(Some(_)) => {}
                        Ok(None) => break None,
                        Err(failure) => break Some(failure),
                    },
                    () = &mut is_idle, if !is_leaving => {
                        is_leaving = true;
                        watched.leave();
                    }
                }
            };
            match ended {
                None => tracing::debug!(%peer, "an unused tunnel connection was closed"),
                Some(TunnelFailure::Silent) => tracing::warn!(
                    %peer, "a tunnel connection was closed: its peer does not answer"
                ),
                Some(failure) => {
                    tracing::debug!(%peer, error = %failure, "a tunnel connection ended");
                }
            }
        };
        let driver = tokio::task::spawn_local(budget.pace(Box::pin(driving)));
        Self {
            opener,
            driver: driver.abort_handle(),
            opened: Instant::now(),
            epoch,
        }
    }

    /// Whether it may take new streams at all. `epoch` is that of the current certificate. A peer that
    /// drains (GOAWAY) takes none, while its open streams go on.
    pub(super) fn takes_streams(&self, epoch: u64) -> bool {
        let is_current = self.epoch == epoch && self.opened.elapsed() < MAX_AGE;
        is_current && self.is_open()
    }

    /// Whether it is up, and not about to end.
    pub(super) fn is_open(&self) -> bool {
        self.opener.takes_streams()
    }

    /// Whether it has room for one more stream.
    pub(super) fn has_room(&self) -> bool {
        self.opener.streams() < STREAMS && self.opener.has_room()
    }

    /// Ends it, with its streams.
    pub(super) fn abort(&self) {
        self.driver.abort();
    }

    pub(super) const fn opener(&self) -> &Opener {
        &self.opener
    }
}

impl Drop for TunnelConnection {
    /// The connection ends with its last stream.
    fn drop(&mut self) {
        self.opener.leave();
    }
}

/// Resolves when there has been no stream for [`IDLE`].
async fn idle(opener: &Opener) {
    while opener.idle_for() < IDLE {
        sleep(IDLE_CHECK).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use ambit_account::NodeAccount;
    use ambit_tunnel::{PlainWire, Stream};
    use tokio::io::duplex;
    use tokio::task::{LocalSet, spawn_local};

    use super::*;
    use crate::shard::turns::TurnScheduler;

    const EPOCH: u64 = 1;

    /// What the peer of a connection does.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum PeerBehaviour {
        Answers,
        /// Allows no more streams than this.
        AllowsStreams(u32),
        /// Once it has a stream.
        Drains,
        /// After the handshake.
        Freezes,
    }

    /// Runs a test with a clock that jumps to the next timer when all tasks wait.
    fn run<T: Future<Output = ()>>(peer: PeerBehaviour, test: impl FnOnce(TunnelConnection) -> T) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        LocalSet::new().block_on(&runtime, async {
            let (near, far) = duplex(64 << 10);
            spawn_local(async move {
                let mut settings = h2::server::Builder::new();
                if let PeerBehaviour::AllowsStreams(most) = peer {
                    settings.max_concurrent_streams(most);
                }
                let mut accepting = settings.handshake::<_, bytes::Bytes>(far).await.unwrap();
                if peer == PeerBehaviour::Freezes {
                    return std::future::pending().await;
                }
                let mut held = Vec::new();
                while let Some(Ok(stream)) = accepting.accept().await {
                    held.push(stream);
                    if peer == PeerBehaviour::Drains {
                        accepting.graceful_shutdown();
                    }
                }
            });
            let address = ([10, 0, 0, 1], 15008).into();
            let turns = TurnScheduler::default();
            spawn_local(turns.clone().run());
            let (budget, memory) = (Budget::new(turns), NodeAccount::new(64 << 20).pod());
            let wire = PlainWire::new(near);
            test(TunnelConnection::open(
                address, wire, memory, EPOCH, &budget,
            ))
            .await;
        });
    }

    #[test]
    fn a_connection_takes_streams_only_with_its_own_certificate() {
        run(PeerBehaviour::Answers, async |connection| {
            assert!(connection.takes_streams(EPOCH));
            assert!(!connection.takes_streams(EPOCH + 1));
        });
    }

    #[test]
    fn a_connection_has_room_for_a_limited_number_of_streams() {
        run(PeerBehaviour::Answers, async |connection| {
            let mut streams: Vec<_> = (0..STREAMS).map(|_| open_stream(&connection)).collect();
            assert!(!connection.has_room());
            streams.pop();
            assert!(connection.has_room());
        });
    }

    #[test]
    fn an_idle_connection_is_closed_and_a_used_one_is_not() {
        run(PeerBehaviour::Answers, async |connection| {
            let stream = open_stream(&connection);
            sleep(4 * IDLE).await;
            assert!(connection.is_open());
            drop(stream);
            sleep(IDLE / 2).await;
            assert!(connection.is_open());
            sleep(IDLE + IDLE_CHECK).await;
            assert!(!connection.is_open());
        });
    }

    #[test]
    fn a_connection_to_a_frozen_peer_is_closed() {
        run(PeerBehaviour::Freezes, async |connection| {
            let _in_use = open_stream(&connection);
            sleep(2 * KEEP_ALIVE.every + KEEP_ALIVE.timeout + Duration::from_secs(1)).await;
            assert!(!connection.is_open());
        });
    }

    fn open_stream(connection: &TunnelConnection) -> Stream {
        connection.opener().open("10.0.0.1:80", "").expect("room")
    }

    #[test]
    fn a_peer_that_drains_gets_no_new_streams() {
        run(PeerBehaviour::Drains, async |connection| {
            assert!(connection.takes_streams(EPOCH));
            let _stream = open_stream(&connection);
            sleep(Duration::from_secs(1)).await;
            assert!(!connection.takes_streams(EPOCH));
        });
    }

    #[test]
    fn a_peers_own_limit_counts() {
        run(PeerBehaviour::AllowsStreams(2), async |connection| {
            sleep(Duration::from_secs(1)).await;
            let first = open_stream(&connection);
            assert!(connection.has_room());
            let second = open_stream(&connection);
            assert!(!connection.has_room());
            drop((first, second));
        });
    }

    #[test]
    fn an_aborted_connection_takes_nothing() {
        run(PeerBehaviour::Answers, async |connection| {
            connection.abort();
            sleep(Duration::from_millis(1)).await;
            assert!(!connection.takes_streams(EPOCH));
        });
    }
}
