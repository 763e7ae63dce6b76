//! An HTTP/2 connection to a peer, and the streams that share it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use h2::client::SendRequest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio::time::{interval, timeout};

use super::pool::TunnelError;
use super::transport::Transport;
use crate::shard::turns::Budget;
use ambit_relay::{CONNECTION_WINDOW, STREAM_WINDOW, client_settings};
use ambit_relay::{Occupancy, StreamLease};

/// How many streams share a connection before another is opened. A peer may allow fewer.
const STREAMS: usize = 100;

/// The most streams of a connection that may stall because their peers do not read. One more could hold
/// all of the connection's window, and every other stream would wait for them. New streams go to another
/// connection before that.
const STALLED: usize = (CONNECTION_WINDOW / STREAM_WINDOW) as usize - 1;

/// The age at which a connection stops taking new streams.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// How long a connection without streams is kept.
const IDLE: Duration = Duration::from_secs(90);

/// How often a peer is pinged.
const PING_EVERY: Duration = Duration::from_secs(20);

/// How long a peer may take to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// An HTTP/2 connection to a peer.
pub(super) struct TunnelConnection {
    requests: SendRequest<Bytes>,
    driver: AbortHandle,
    occupancy: Rc<Occupancy>,
    opened: Instant,
    epoch: u64,
}

/// Why this side closed a connection.
enum CloseReason {
    Silent,
    Idle,
}

impl TunnelConnection {
    /// Begins HTTP/2 on a stream whose peer is verified, over `transport`. `epoch` is that of the
    /// certificate with which the stream was opened. The connection runs on `budget`.
    ///
    /// # Errors
    /// [`TunnelError::Http2`].
    pub(super) async fn open<S, T>(
        peer: SocketAddr,
        stream: S,
        transport: Transport<T>,
        epoch: u64,
        budget: &Rc<Budget>,
    ) -> Result<Self, TunnelError>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let opening = transport.sending(client_settings().handshake(stream));
        let (requests, mut connection) = opening
            .await
            .map_err(|source| TunnelError::Http2 { peer, source })?;
        let occupancy = Rc::new(Occupancy::new());
        let (pings, watched) = (connection.ping_pong(), Rc::clone(&occupancy));
        let driving = async move {
            tokio::select! {
                ended = transport.sending(connection) => if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "a tunnel connection ended");
                },
                closed = disuse(pings, &watched) => match closed {
                    CloseReason::Idle => tracing::debug!(%peer, "an idle tunnel connection was closed"),
                    CloseReason::Silent => tracing::warn!(
                        %peer, "a tunnel connection was closed: its peer does not answer"
                    ),
                },
            }
            watched.close();
        };
        let driver = tokio::task::spawn_local(budget.pace(Box::pin(driving)));
        Ok(Self {
            requests,
            driver: driver.abort_handle(),
            occupancy,
            opened: Instant::now(),
            epoch,
        })
    }

    /// Whether it may take new streams at all. `epoch` is that of the current certificate. A peer that
    /// drains (GOAWAY) takes none, while its open streams go on.
    pub(super) fn takes_streams(&self, epoch: u64) -> bool {
        let is_current = self.epoch == epoch && self.opened.elapsed() < MAX_AGE;
        let refuses = matches!(self.requests.clone().ready().now_or_never(), Some(Err(_)));
        self.is_open() && is_current && !refuses
    }

    /// Whether it is up.
    pub(super) fn is_open(&self) -> bool {
        self.occupancy.is_open()
    }

    /// Whether it has room for one more stream.
    pub(super) fn has_room(&self) -> bool {
        let most = STREAMS.min(self.requests.current_max_send_streams());
        self.occupancy.streams() < most && self.occupancy.stalled() < STALLED
    }

    /// Ends it, with its streams.
    pub(super) fn abort(&self) {
        self.occupancy.close();
        self.driver.abort();
    }

    /// Takes a place for one stream.
    pub(super) fn take(&self) -> (SendRequest<Bytes>, StreamLease) {
        (self.requests.clone(), StreamLease::take(&self.occupancy))
    }
}

/// Resolves when the peer no longer answers, or when the connection has been idle for [`IDLE`]. In the latter
/// case it is marked closed before another task can run.
async fn disuse(pings: Option<h2::PingPong>, occupancy: &Occupancy) -> CloseReason {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    let mut due = interval(PING_EVERY);
    due.tick().await;
    loop {
        due.tick().await;
        if occupancy.idle_for() >= IDLE {
            occupancy.close();
            return CloseReason::Idle;
        }
        let answer = timeout(PING_TIMEOUT, pings.ping(h2::Ping::opaque())).await;
        if !matches!(answer, Ok(Ok(_))) {
            return CloseReason::Silent;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use tokio::io::duplex;
    use tokio::task::{LocalSet, spawn_local};
    use tokio::time::sleep;

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
                let mut settings = ambit_relay::server_settings();
                if let PeerBehaviour::AllowsStreams(most) = peer {
                    settings.max_concurrent_streams(most);
                }
                let mut accepting = settings.handshake::<_, Bytes>(far).await.unwrap();
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
            let near = Transport::new(near);
            let turns = TurnScheduler::default();
            spawn_local(turns.clone().run());
            let budget = Budget::new(turns);
            let opening = TunnelConnection::open(address, near.clone(), near, EPOCH, &budget);
            test(opening.await.unwrap()).await;
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
            let mut leases: Vec<_> = (0..STREAMS).map(|_| connection.take().1).collect();
            assert!(!connection.has_room());
            leases.pop();
            assert!(connection.has_room());
        });
    }

    #[test]
    fn streams_that_stall_send_new_ones_elsewhere() {
        run(PeerBehaviour::Answers, async |connection| {
            let leases: Vec<_> = (0..STALLED).map(|_| connection.take().1).collect();
            let mut stalls: Vec<_> = leases.iter().map(StreamLease::stall).collect();
            assert!(!connection.has_room());
            stalls.pop();
            assert!(connection.has_room());
        });
    }

    #[test]
    fn an_idle_connection_is_closed_and_a_used_one_is_not() {
        run(PeerBehaviour::Answers, async |connection| {
            let (requests, lease) = connection.take();
            sleep(4 * IDLE).await;
            assert!(connection.is_open());
            drop((requests, lease));
            sleep(IDLE / 2).await;
            assert!(connection.is_open());
            sleep(IDLE).await;
            assert!(!connection.is_open());
        });
    }

    #[test]
    fn a_connection_to_a_frozen_peer_is_closed() {
        run(PeerBehaviour::Freezes, async |connection| {
            let _in_use = connection.take();
            sleep(PING_EVERY + PING_TIMEOUT + Duration::from_secs(1)).await;
            assert!(!connection.is_open());
        });
    }

    fn open_stream(connection: &TunnelConnection) -> impl Sized + use<> {
        let (mut requests, lease) = connection.take();
        let mut request = http::Request::new(());
        *request.method_mut() = http::Method::CONNECT;
        *request.uri_mut() = "10.0.0.1:80".parse().unwrap();
        (requests.send_request(request, false).unwrap(), lease)
    }

    #[test]
    fn a_peer_that_drains_gets_no_new_streams() {
        run(PeerBehaviour::Drains, async |connection| {
            assert!(connection.takes_streams(EPOCH));
            let _stream = open_stream(&connection);
            sleep(Duration::from_secs(1)).await;
            assert!(connection.is_open(), "the open stream goes on");
            assert!(!connection.takes_streams(EPOCH));
        });
    }

    #[test]
    fn a_peers_own_limit_counts() {
        run(PeerBehaviour::AllowsStreams(2), async |connection| {
            sleep(Duration::from_secs(1)).await;
            let first = connection.take();
            assert!(connection.has_room());
            let second = connection.take();
            assert!(!connection.has_room());
            drop((first, second));
        });
    }

    #[test]
    fn an_aborted_connection_takes_nothing() {
        run(PeerBehaviour::Answers, async |connection| {
            connection.abort();
            assert!(!connection.takes_streams(EPOCH));
        });
    }
}
