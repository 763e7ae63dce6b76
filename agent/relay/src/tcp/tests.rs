//! A relay between two real connections, and an application at each end.

use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{pause, sleep};

use super::*;
use crate::STALLED_AFTER;
use crate::testing::{fill, run, run_within};

/// With a paused clock, longer than any limit.
const PATIENCE_WHEN_PAUSED: Duration = Duration::from_secs(3600);

/// More than a reader's kernel takes if its application reads nothing, and less than fits into the relay's
/// sockets.
const ANSWER: usize = 256 << 10;
const SMALL_BUFFER: u32 = 4 << 10;

/// A client and a server, with a relay between them.
struct Chain {
    client: TcpStream,
    server: TcpStream,
    meter: Rc<Meter>,
    relay: JoinHandle<RelayEnd>,
    /// Which party has closed its socket, as far as the relay can learn.
    closed: Rc<Cell<Option<Party>>>,
}

impl Chain {
    /// Both applications' kernels take little if they do not read.
    async fn make() -> Self {
        Self::make_after(Ahead::default()).await
    }

    /// With what was read before.
    async fn make_after(ahead: Ahead) -> Self {
        let (client, accepted) = tcp_pair(Party::Client).await;
        let (dialled, server) = tcp_pair(Party::Server).await;
        let (meter, closed) = (Rc::new(Meter::default()), Rc::new(Cell::new(None)));
        let (counted, known) = (Rc::clone(&meter), Rc::clone(&closed));
        let relay = spawn_local(async move {
            let has_closed = |party, _: &TcpStream| known.get() == Some(party);
            relay_tcp(accepted, dialled, ahead, &counted, has_closed).await
        });
        Self {
            client,
            server,
            meter,
            relay,
            closed,
        }
    }
}

/// Waits until the relay has written the whole answer, and a moment longer, in which it may notice that the
/// sender has broken off.
async fn until_carried(carried: impl Fn() -> u64) {
    while carried() < ANSWER as u64 {
        sleep(Duration::from_millis(5)).await;
    }
    sleep(Duration::from_millis(50)).await;
}

/// The dialling and the accepting end of a connection. The application's has a small receive buffer.
async fn tcp_pair(application: Party) -> (TcpStream, TcpStream) {
    let listening = TcpSocket::new_v4().unwrap();
    let dialling = TcpSocket::new_v4().unwrap();
    match application {
        Party::Client => dialling.set_recv_buffer_size(SMALL_BUFFER).unwrap(),
        Party::Server => listening.set_recv_buffer_size(SMALL_BUFFER).unwrap(),
    }
    listening.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener: TcpListener = listening.listen(1).unwrap();
    let dialled = dialling.connect(listener.local_addr().unwrap());
    let (dialled, accepted) = tokio::join!(dialled, listener.accept());
    (dialled.unwrap(), accepted.unwrap().0)
}

/// Sends all of it, and resets the connection when the other side's kernel has it.
async fn send_and_break_off(mut stream: TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    assert_eq!(
        drain_then(&stream, CloseMode::Reset).await,
        Drained::Acknowledged
    );
}

/// Everything that can be read, and how it ended.
async fn read_all(stream: &mut (impl AsyncReadExt + Unpin)) -> (usize, Result<(), ErrorKind>) {
    let (mut read, mut piece) = (0, [0; 4096]);
    loop {
        match stream.read(&mut piece).await {
            Ok(0) => return (read, Ok(())),
            Ok(length) => read += length,
            Err(error) => return (read, Err(error.kind())),
        }
    }
}

const RESET: Result<(), ErrorKind> = Err(ErrorKind::ConnectionReset);

/// Writes until it fails. Returns the error.
async fn write_until_it_fails(stream: &mut (impl AsyncWriteExt + Unpin)) -> ErrorKind {
    loop {
        if let Err(error) = stream.write_all(&[1; 16 << 10]).await {
            return error.kind();
        }
    }
}

#[test]
fn what_was_read_ahead_goes_first_both_ways() {
    run(async {
        let mut chain = Chain::make_after(Ahead {
            from_client: Bytes::from_static(b"early "),
            from_server: Bytes::from_static(b"hello "),
        })
        .await;
        let (client, server) = (&mut chain.client, &mut chain.server);
        client.write_all(b"ping").await.unwrap();
        server.write_all(b"pong").await.unwrap();
        client.shutdown().await.unwrap();
        server.shutdown().await.unwrap();
        let (mut up, mut down) = (String::new(), String::new());
        server.read_to_string(&mut up).await.unwrap();
        client.read_to_string(&mut down).await.unwrap();
        assert_eq!((up.as_str(), down.as_str()), ("early ping", "hello pong"));
        assert_eq!(chain.relay.await.unwrap(), RelayEnd::Orderly);
        assert_eq!((chain.meter.sent(), chain.meter.received()), (10, 10));
    });
}

#[test]
fn what_a_server_sent_before_it_broke_off_arrives() {
    run(async {
        let mut chain = Chain::make().await;
        send_and_break_off(chain.server, &[7; ANSWER]).await;
        until_carried(|| chain.meter.received()).await;
        assert_eq!(read_all(&mut chain.client).await, (ANSWER, RESET));
        assert_eq!(chain.relay.await.unwrap(), RelayEnd::Reset(Party::Server));
    });
}

#[test]
fn what_a_client_sent_before_it_broke_off_arrives() {
    run(async {
        let mut chain = Chain::make().await;
        send_and_break_off(chain.client, &[7; ANSWER]).await;
        until_carried(|| chain.meter.sent()).await;
        assert_eq!(read_all(&mut chain.server).await, (ANSWER, RESET));
        assert_eq!(chain.relay.await.unwrap(), RelayEnd::Reset(Party::Client));
    });
}

/// The relay's write to the server takes the error that the next read would report, and that read shows an
/// end. A part of an answer must not look like all of it.
#[test]
fn a_break_off_that_a_write_meets_first_is_not_an_end_in_order() {
    run(async {
        let mut chain = Chain::make().await;
        // The relay waits for the client, and does not read from the server meanwhile.
        let sent = fill(&mut chain.server).await;
        // Without an await in between, the relay finds the request and the reset together.
        chain.client.try_write(b"more of the request").unwrap();
        chain.server.set_zero_linger().unwrap();
        drop(chain.server);
        let (read, ended) = read_all(&mut chain.client).await;
        assert!(0 < read && read < sent, "{read} of {sent}");
        assert_eq!(ended, RESET);
        assert_eq!(chain.relay.await.unwrap(), RelayEnd::Reset(Party::Server));
    });
}

/// A server refuses a large request: it answers at once, and closes while the request is on its way.
#[test]
fn an_answer_arrives_although_the_server_does_not_read_the_request() {
    for lingers in [false, true] {
        run(async {
            let chain = Chain::make().await;
            let (mut from_relay, mut to_relay) = chain.client.into_split();
            let sending = spawn_local(async move { write_until_it_fails(&mut to_relay).await });
            let mut server = chain.server;
            server.read_exact(&mut [0; 1024]).await.unwrap();
            server.write_all(&[4; ANSWER]).await.unwrap();
            if lingers {
                // The answer ends in order. What the client sends afterwards is answered with a reset.
                server.shutdown().await.unwrap();
            }
            drain_then(&server, CloseMode::Orderly).await;
            drop(server);
            let (read, ended) = read_all(&mut from_relay).await;
            assert_eq!(read, ANSWER);
            let failed = sending.await.unwrap();
            if lingers {
                assert_eq!(ended, Ok(()));
            } else {
                // The client's own failed write may have taken the error.
                assert!(ended == RESET || failed == ErrorKind::ConnectionReset);
            }
            assert_eq!(chain.relay.await.unwrap(), RelayEnd::Reset(Party::Server));
        });
    }
}

#[test]
fn the_end_of_one_direction_leaves_the_other_running() {
    run(async {
        let mut chain = Chain::make().await;
        chain.client.write_all(b"all I have").await.unwrap();
        chain.client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut chain.server).await, (10, Ok(())));
        chain.server.write_all(b"still here").await.unwrap();
        chain.client.read_exact(&mut [0; 10]).await.unwrap();
        chain.server.shutdown().await.unwrap();
        assert_eq!(read_all(&mut chain.client).await, (0, Ok(())));
        assert_eq!(chain.relay.await.unwrap(), RelayEnd::Orderly);
    });
}

#[test]
fn a_server_that_has_ended_its_answer_goes_on_reading() {
    run_within(PATIENCE_WHEN_PAUSED, async {
        let mut chain = Chain::make().await;
        chain.server.write_all(b"bye").await.unwrap();
        chain.server.shutdown().await.unwrap();
        assert_eq!(read_all(&mut chain.client).await, (3, Ok(())));
        pause();
        sleep(Duration::from_secs(1800)).await;
        chain.client.write_all(b"one more thing").await.unwrap();
        chain.client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut chain.server).await, (14, Ok(())));
        assert_eq!(chain.relay.await.unwrap(), RelayEnd::Orderly);
    });
}

#[test]
fn a_client_that_breaks_off_resets_a_server_that_has_ended_its_answer() {
    run(async {
        let mut chain = Chain::make().await;
        chain.server.write_all(b"bye").await.unwrap();
        chain.server.shutdown().await.unwrap();
        chain.client.read_exact(&mut [0; 3]).await.unwrap();
        chain.client.set_zero_linger().unwrap();
        drop(chain.client);
        assert_eq!(read_all(&mut chain.server).await, (0, RESET));
        assert_eq!(chain.relay.await.unwrap(), RelayEnd::Reset(Party::Client));
    });
}

#[test]
fn a_server_that_breaks_off_after_its_answer_does_not_hold_the_client() {
    run(async {
        let mut chain = Chain::make().await;
        chain.server.write_all(&[7; ANSWER]).await.unwrap();
        chain.server.shutdown().await.unwrap();
        drain_then(&chain.server, CloseMode::Reset).await;
        chain.server.set_zero_linger().unwrap();
        drop(chain.server);
        assert_eq!(read_all(&mut chain.client).await, (ANSWER, Ok(())));
        assert_eq!(chain.relay.await.unwrap(), RelayEnd::Reset(Party::Server));
        let failed = write_until_it_fails(&mut chain.client).await;
        assert!(matches!(
            failed,
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
        ));
    });
}

#[test]
fn a_client_that_takes_nothing_is_reset_after_minutes() {
    run_within(PATIENCE_WHEN_PAUSED, async {
        let mut chain = Chain::make().await;
        send_and_break_off(chain.server, &[7; ANSWER]).await;
        pause();
        let end = chain.relay.await.unwrap();
        assert_eq!(end, RelayEnd::Stalled(Party::Client));
        let (read, ended) = read_all(&mut chain.client).await;
        assert!(read < ANSWER, "{read}");
        assert_eq!(ended, RESET);
    });
}

/// The relay is still copying when the server breaks off: more was sent than the client's side holds.
#[test]
fn a_client_that_takes_nothing_of_a_long_answer_is_reset_after_minutes() {
    run_within(PATIENCE_WHEN_PAUSED, async {
        let mut chain = Chain::make().await;
        fill(&mut chain.server).await;
        chain.server.set_zero_linger().unwrap();
        drop(chain.server);
        pause();
        let end = chain.relay.await.unwrap();
        assert_eq!(end, RelayEnd::Stalled(Party::Client));
        assert_eq!(read_all(&mut chain.client).await.1, RESET);
    });
}

#[test]
fn a_reader_that_pauses_is_not_reset_while_its_connection_is_whole() {
    run_within(PATIENCE_WHEN_PAUSED, async {
        let mut chain = Chain::make().await;
        chain.server.write_all(&[7; ANSWER]).await.unwrap();
        pause();
        sleep(STALLED_AFTER * 3).await;
        let mut answer = vec![0; ANSWER];
        chain.client.read_exact(&mut answer).await.unwrap();
        assert!(!chain.relay.is_finished());
    });
}

/// Policy and caps end a connection by dropping the relay.
#[test]
fn a_relay_that_is_dropped_while_it_waits_for_a_reader_cuts_at_once() {
    run(async {
        let Chain {
            mut client,
            server,
            meter,
            relay,
            ..
        } = Chain::make().await;
        send_and_break_off(server, &[7; ANSWER]).await;
        until_carried(|| meter.received()).await;
        assert!(!relay.is_finished());
        relay.abort();
        assert!(relay.await.unwrap_err().is_cancelled());
        let (read, ended) = read_all(&mut client).await;
        assert!(read < ANSWER, "{read}");
        assert_eq!(ended, RESET);
    });
}

#[test]
fn a_relay_that_is_dropped_resets_both_sides() {
    run(async {
        let mut chain = Chain::make().await;
        chain.client.write_all(b"x").await.unwrap();
        chain.server.read_exact(&mut [0; 1]).await.unwrap();
        chain.relay.abort();
        assert_eq!(read_all(&mut chain.client).await, (0, RESET));
        assert_eq!(read_all(&mut chain.server).await, (0, RESET));
    });
}

#[test]
fn a_server_that_has_closed_does_not_wait_for_its_client_to_close() {
    run(async {
        let mut chain = Chain::make().await;
        // Bytes that are never read must not cost the client its answer.
        chain.server.write_all(&[7; ANSWER]).await.unwrap();
        chain.server.shutdown().await.unwrap();
        until_carried(|| chain.meter.received()).await;
        chain.closed.set(Some(Party::Server));
        sleep(Duration::from_millis(300)).await;
        chain.client.write_all(b"more").await.unwrap();
        assert_eq!(read_all(&mut chain.client).await, (ANSWER, Ok(())));
        let end = chain.relay.await.unwrap();
        assert_eq!(end, RelayEnd::Closed(Party::Server));
        assert_eq!(end.as_str(), "closed-by-server");
    });
}

#[test]
fn a_client_that_has_closed_does_not_wait_for_its_server_to_close() {
    run(async {
        let mut chain = Chain::make().await;
        chain.client.write_all(b"request").await.unwrap();
        chain.client.shutdown().await.unwrap();
        chain.closed.set(Some(Party::Client));
        assert_eq!(read_all(&mut chain.server).await, (7, Ok(())));
        let end = chain.relay.await.unwrap();
        assert_eq!(end, RelayEnd::Closed(Party::Client));
        // As without a relay: what is sent to a closed socket is answered with a reset.
        let failed = write_until_it_fails(&mut chain.server).await;
        assert!(matches!(
            failed,
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
        ));
    });
}

#[test]
fn the_question_whether_a_party_has_closed_waits_for_its_end() {
    run(async {
        let mut chain = Chain::make().await;
        chain.closed.set(Some(Party::Server));
        chain.client.write_all(b"x").await.unwrap();
        chain.server.read_exact(&mut [0; 1]).await.unwrap();
        sleep(Duration::from_millis(500)).await;
        assert!(!chain.relay.is_finished());
    });
}
