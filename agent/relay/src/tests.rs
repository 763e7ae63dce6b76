//! Two relays with a tunnel between them, and an application at each end.

use std::future::Future;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use h2::server::SendResponse;
use http::{Method, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::timeout;

use super::*;

/// How long a test waits for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client and a server, with two relays and a tunnel between them.
struct Chain {
    client: TcpStream,
    server: TcpStream,
    meter: Rc<Meter>,
    relays: [JoinHandle<()>; 2],
    /// The HTTP/2 connection's task.
    wire: JoinHandle<()>,
}

impl Chain {
    async fn make() -> Self {
        let (near, far, wire) = tunnel(ample_server_settings()).await;
        let (client, accepted) = tcp_pair().await;
        let (dialled, server) = tcp_pair().await;
        let meter = Rc::new(Meter::default());
        let counted = Rc::clone(&meter);
        let relays = [
            spawn_local(async move { relay(accepted, near, LocalEnd::Source, &counted).await }),
            spawn_local(async move {
                relay(dialled, far, LocalEnd::Destination, &Meter::default()).await;
            }),
        ];
        Self {
            client,
            server,
            meter,
            relays,
            wire,
        }
    }
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap());
    let (dialled, accepted) = tokio::join!(dialled, listener.accept());
    (dialled.unwrap(), accepted.unwrap().0)
}

/// Both ends of a CONNECT stream, and the task of the connection that carries it.
async fn tunnel(settings: h2::server::Builder) -> (Tunnel, Tunnel, JoinHandle<()>) {
    let (near, far) = duplex(256 << 10);
    let accepting = spawn_local(async move {
        let mut connection = settings.handshake(far).await.unwrap();
        let (request, mut respond): (_, SendResponse<Bytes>) =
            connection.accept().await.unwrap().unwrap();
        spawn_local(async move { while connection.accept().await.is_some() {} });
        let send = respond.send_response(Response::new(()), false).unwrap();
        (send, request.into_body())
    });
    let (mut requests, connection) = h2::client::handshake(near).await.unwrap();
    let wire = spawn_local(async move { drop(connection.await) });
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = "10.0.0.1:80".parse().unwrap();
    let (response, send) = requests.send_request(request, false).unwrap();
    let receive = response.await.unwrap().into_body();
    let tunnel = |send, receive| Tunnel {
        send,
        receive,
        lease: None,
    };
    let (far_send, far_receive) = accepting.await.unwrap();
    (tunnel(send, receive), tunnel(far_send, far_receive), wire)
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let bounded = async { timeout(PATIENCE, test).await.expect("in time") };
    LocalSet::new().block_on(&runtime, bounded);
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
    run(async {
        let chain = Chain::make().await;
        let chunk = vec![0; 64 << 10];
        while let Ok(written) = timeout(Duration::from_secs(1), chain.client.writable()).await {
            written.unwrap();
            let _ = chain.client.try_write(&chunk);
        }
        chain.client.set_zero_linger().unwrap();
        drop(chain.client);
        for relay in chain.relays {
            relay.await.unwrap();
        }
        drop(chain.server);
    });
}
