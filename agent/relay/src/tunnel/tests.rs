//! Two relays with a tunnel between them, and an application at each end.

use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use ambit_account::NodeAccount;
use ambit_tunnel::{Incoming, KeepAlive, PlainWire, accept, connect};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{pause, timeout};

use super::*;
use crate::STALLED_AFTER;
use crate::testing::{fill, run, run_within};

const KEEP: KeepAlive = KeepAlive {
    every: Duration::from_secs(3600),
    timeout: Duration::from_secs(3600),
};

/// A client and a server, with two relays and a tunnel between them.
struct Chain {
    client: TcpStream,
    server: TcpStream,
    meter: Meter,
    relays: [JoinHandle<RelayEnd>; 2],
    /// The tunnel's connection.
    wire: JoinHandle<()>,
    /// Which party has closed its socket, as far as the relays can learn.
    closed: Rc<Cell<Option<Party>>>,
}

impl Chain {
    async fn make() -> Self {
        Self::make_after([Ahead::default(), Ahead::default()]).await
    }

    /// With what the two relays have read before.
    async fn make_after([near_ahead, far_ahead]: [Ahead; 2]) -> Self {
        let (near, far, wire) = tunnel().await;
        let (client, accepted) = tcp_pair().await;
        let (dialled, server) = tcp_pair().await;
        let (meter, closed) = (Meter::default(), Rc::new(Cell::new(None)));
        let relay = |socket, stream, party, ahead, meter: Meter| {
            let closed = Rc::clone(&closed);
            spawn_local(async move {
                let has_closed = |_: &TcpStream| closed.get() == Some(party);
                relay(socket, stream, party, ahead, &meter, has_closed).await
            })
        };
        let relays = [
            relay(accepted, near, Party::Client, near_ahead, meter.clone()),
            relay(dialled, far, Party::Server, far_ahead, Meter::default()),
        ];
        Self {
            client,
            server,
            meter,
            relays,
            wire,
            closed,
        }
    }

    async fn ends(self) -> [RelayEnd; 2] {
        let [near, far] = self.relays;
        [near.await.unwrap(), far.await.unwrap()]
    }
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap());
    let (dialled, accepted) = tokio::join!(dialled, listener.accept());
    (dialled.unwrap(), accepted.unwrap().0)
}

/// Both ends of a CONNECT stream, and the task of the connection that carries it.
async fn tunnel() -> (Stream, Stream, JoinHandle<()>) {
    let (near, far) = duplex(256 << 10);
    let memory = NodeAccount::new(1 << 30).pod();
    let (opener, mut connection) = connect(PlainWire::new(near), memory.clone(), KEEP);
    spawn_local(async move { while let Ok(Some(_)) = connection.next().await {} });
    let mut connection = accept(PlainWire::new(far), memory, KEEP);
    let near = opener.open("10.0.0.1:80", "").unwrap();
    let Ok(Some(Incoming::Request(_, responder))) = connection.next().await else {
        panic!("a request");
    };
    let wire = spawn_local(async move { while let Ok(Some(_)) = connection.next().await {} });
    let far = responder.accept();
    assert_eq!(near.answered().await.unwrap(), 200);
    (near, far, wire)
}

async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all
}

/// An abort must never look like an orderly end: the bytes before it may be incomplete.
async fn ensure_reset(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest).await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn bytes_pass_both_ways_and_are_counted() {
    run(async {
        let mut chain = Chain::make().await;
        let large = vec![7; 3 << 20];
        let (client, server) = (&mut chain.client, &mut chain.server);
        let sending = async {
            client.write_all(&large).await.unwrap();
            let mut answer = [0; 6];
            client.read_exact(&mut answer).await.unwrap();
            answer
        };
        let receiving = async {
            let mut received = vec![0; large.len()];
            server.read_exact(&mut received).await.unwrap();
            server.write_all(b"thanks").await.unwrap();
            received
        };
        let (answer, received) = tokio::join!(sending, receiving);
        assert_eq!(&answer, b"thanks");
        assert!(received == large);
        assert_eq!(chain.meter.sent(), large.len() as u64);
        assert_eq!(chain.meter.received(), 6);
    });
}

fn ahead(from_client: &'static str, from_server: &'static str) -> Ahead {
    Ahead {
        from_client: Bytes::from_static(from_client.as_bytes()),
        from_server: Bytes::from_static(from_server.as_bytes()),
    }
}

#[test]
fn what_was_read_ahead_goes_first_both_ways() {
    run(async {
        let ahead = [ahead("a", "d"), ahead("b", "c")];
        let mut chain = Chain::make_after(ahead).await;
        let (client, server) = (&mut chain.client, &mut chain.server);
        client.write_all(b"ping").await.unwrap();
        server.write_all(b"pong").await.unwrap();
        client.shutdown().await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(read_to_end(server).await, b"baping");
        assert_eq!(read_to_end(client).await, b"dcpong");
        assert_eq!((chain.meter.sent(), chain.meter.received()), (5, 6));
        assert_eq!(chain.ends().await, [RelayEnd::Orderly; 2]);
    });
}

/// The peer's CANCEL does not wait for the application to take what was read before.
#[test]
fn what_was_read_ahead_is_overtaken_by_policy() {
    run(async {
        let (near, far, _wire) = tunnel().await;
        let (mut client, accepted) = tcp_pair().await;
        let ahead = Ahead {
            from_client: Bytes::new(),
            from_server: vec![7; 64 << 20].into(),
        };
        let relaying = spawn_local(async move {
            relay(
                accepted,
                near,
                Party::Client,
                ahead,
                &Meter::default(),
                |_| false,
            )
            .await
        });
        client.readable().await.unwrap();
        // Then only this direction can tell.
        client.shutdown().await.unwrap();
        let mut end = ReadBuf::uninit(&mut []);
        poll_fn(|context| far.poll_read(context, &mut end))
            .await
            .unwrap();
        drop(far);
        let end = relaying.await.unwrap();
        assert_eq!(end, RelayEnd::StreamReset(ErrorCode::CANCEL.0));
        ensure_reset(&mut client).await;
    });
}

#[test]
fn the_end_of_one_direction_leaves_the_other_running() {
    run(async {
        let mut chain = Chain::make().await;
        chain.client.write_all(b"all I have").await.unwrap();
        chain.client.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut chain.server).await, b"all I have");
        chain.server.write_all(b"still here").await.unwrap();
        let mut answer = [0; 10];
        chain.client.read_exact(&mut answer).await.unwrap();
        chain.server.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut chain.client).await, b"");
        for relay in chain.relays {
            relay.await.unwrap();
        }
    });
}

#[test]
fn a_server_may_end_first() {
    run(async {
        let mut chain = Chain::make().await;
        chain.server.write_all(b"bye").await.unwrap();
        chain.server.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut chain.client).await, b"bye");
        chain.client.write_all(b"one more thing").await.unwrap();
        chain.client.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut chain.server).await, b"one more thing");
    });
}

#[test]
fn an_abort_of_the_client_is_not_an_orderly_end_for_the_server() {
    run(async {
        let mut chain = Chain::make().await;
        chain.client.write_all(b"half a sent").await.unwrap();
        chain.server.read_exact(&mut [0; 11]).await.unwrap();
        chain.client.set_zero_linger().unwrap();
        drop(chain.client);
        ensure_reset(&mut chain.server).await;
    });
}

#[test]
fn an_abort_of_the_server_is_not_an_orderly_end_for_the_client() {
    run(async {
        let mut chain = Chain::make().await;
        chain.server.write_all(b"half a sent").await.unwrap();
        chain.client.read_exact(&mut [0; 11]).await.unwrap();
        chain.server.set_zero_linger().unwrap();
        drop(chain.server);
        ensure_reset(&mut chain.client).await;
    });
}

#[test]
fn a_tunnel_that_breaks_is_not_an_orderly_end_for_either_side() {
    run(async {
        let mut chain = Chain::make().await;
        chain.client.write_all(b"x").await.unwrap();
        chain.server.read_exact(&mut [0; 1]).await.unwrap();
        chain.wire.abort();
        ensure_reset(&mut chain.client).await;
        ensure_reset(&mut chain.server).await;
    });
}

#[test]
fn a_relay_that_is_dropped_is_not_an_orderly_end_for_either_side() {
    run(async {
        let mut chain = Chain::make().await;
        chain.client.write_all(b"x").await.unwrap();
        chain.server.read_exact(&mut [0; 1]).await.unwrap();
        chain.relays[0].abort();
        ensure_reset(&mut chain.client).await;
        ensure_reset(&mut chain.server).await;
    });
}

#[test]
fn a_reader_that_does_not_read_stops_the_writer() {
    run(async {
        let mut chain = Chain::make().await;
        for stream in [&chain.client, &chain.server] {
            SockRef::from(stream)
                .set_send_buffer_size(64 << 10)
                .unwrap();
            SockRef::from(stream)
                .set_recv_buffer_size(64 << 10)
                .unwrap();
        }
        // Sockets of the relays, windows and buffers in between.
        let bound = 24 << 20;
        let chunk = vec![0; 64 << 10];
        let mut accepted = 0;
        while let Ok(written) = timeout(Duration::from_secs(1), chain.client.write(&chunk)).await {
            accepted += written.unwrap();
            assert!(accepted < bound, "{accepted} bytes taken, and none read");
        }
        let (client, server) = (&mut chain.client, &mut chain.server);
        let reading = async {
            let mut received = vec![0; accepted];
            server.read_exact(&mut received).await.unwrap();
        };
        let (_, ended) = tokio::join!(reading, client.shutdown());
        ended.unwrap();
    });
}

#[test]
fn a_client_that_aborts_is_noticed_while_the_server_does_not_read() {
    run_within(20 * STALLED_AFTER, async {
        let mut chain = Chain::make().await;
        fill(&mut chain.client).await;
        chain.client.set_zero_linger().unwrap();
        drop(chain.client);
        pause();
        let [near, _far] = chain.relays;
        let end = timeout(10 * STALLED_AFTER, near).await.expect("in time");
        assert_eq!(end.unwrap(), RelayEnd::Stalled(Party::Server));
        drop(chain.server);
    });
}

#[test]
fn what_was_sent_before_a_break_off_arrives_however_late_it_is_read() {
    run(async {
        let mut chain = Chain::make().await;
        let answer = vec![7; 300_000];
        chain.server.write_all(&answer).await.unwrap();
        // An answer while the request is still under way: the server's kernel resets the connection.
        chain.client.write_all(&[1; 100_000]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(chain.server);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut received = vec![0; answer.len()];
        chain.client.read_exact(&mut received).await.unwrap();
        assert!(received == answer);
        ensure_reset(&mut chain.client).await;
        let [near, far] = chain.relays;
        assert_eq!(near.await.unwrap(), RelayEnd::Reset(Party::Server));
        assert_eq!(far.await.unwrap(), RelayEnd::Reset(Party::Server));
    });
}

/// A server that answers early, and closes while the client still sends.
#[test]
fn an_early_answer_arrives() {
    run(async {
        let mut chain = Chain::make().await;
        chain
            .server
            .write_all(b"413 Content Too Large")
            .await
            .unwrap();
        fill(&mut chain.client).await;
        drop(chain.server);
        let mut received = [0; 21];
        chain.client.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"413 Content Too Large");
        let mut rest = Vec::new();
        let _ = chain.client.read_to_end(&mut rest).await;
        assert_eq!(rest, b"");
    });
}

#[test]
fn a_server_that_has_closed_ends_the_connection_of_a_client_that_does_not() {
    run(async {
        let mut chain = Chain::make().await;
        chain.server.write_all(b"bye").await.unwrap();
        chain.server.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut chain.client).await, b"bye");
        assert!(!chain.relays[0].is_finished());
        chain.closed.set(Some(Party::Server));
        let [near, far] = chain.relays;
        assert_eq!(far.await.unwrap(), RelayEnd::Closed(Party::Server));
        assert_eq!(near.await.unwrap(), RelayEnd::Closed(Party::Server));
    });
}

/// It closes its socket before it has read what comes: FIN, and then a reset, while nothing more is sent to it.
#[test]
fn a_break_off_after_an_end_in_order_is_noticed() {
    run(async {
        let mut chain = Chain::make().await;
        chain.client.write_all(b"request").await.unwrap();
        chain.client.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut chain.server).await, b"request");
        chain.client.set_zero_linger().unwrap();
        drop(chain.client);
        let [near, far] = chain.relays;
        assert_eq!(near.await.unwrap(), RelayEnd::Reset(Party::Client));
        assert_eq!(far.await.unwrap(), RelayEnd::Reset(Party::Client));
    });
}

#[test]
fn a_connection_that_ends_on_both_sides_ends_in_order() {
    run(async {
        let mut chain = Chain::make().await;
        chain.client.shutdown().await.unwrap();
        chain.server.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut chain.client).await, b"");
        assert_eq!(read_to_end(&mut chain.server).await, b"");
        assert_eq!(chain.ends().await, [RelayEnd::Orderly; 2]);
    });
}
