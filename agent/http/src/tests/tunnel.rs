//! Clients that connect through a tunnel.

use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request};
use socket2::SockRef;
use tokio::io::duplex;

use super::super::{Downstream, TunnelIo};
use super::*;
use ambit_account::NodeAccount;
use ambit_relay::Ahead;
use ambit_tunnel::{Incoming, KeepAlive, PlainWire, accept};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const SENT: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// The caller's end of a tunnel, and the application's end of its connection.
struct Tunnelled {
    send: SendStream<Bytes>,
    receive: RecvStream,
    application: TcpStream,
    gate: TestGate,
    serving: JoinHandle<()>,
}

impl Tunnelled {
    async fn new() -> Self {
        let (near, far) = duplex(256 << 10);
        let (dialled, application) = tcp_pair().await;
        let small = 16 << 10;
        SockRef::from(&dialled).set_send_buffer_size(small).unwrap();
        SockRef::from(&application)
            .set_recv_buffer_size(small)
            .unwrap();
        let gate = TestGate::new();
        let judge = gate.clone();
        let accepting = spawn_local(async move {
            let keep = KeepAlive {
                every: Duration::from_secs(60),
                timeout: Duration::from_secs(60),
            };
            let memory = NodeAccount::new(64 << 20).pod();
            let mut connection = accept(PlainWire::new(far), memory, keep);
            let Ok(Some(Incoming::Request(_, responder))) = connection.next().await else {
                panic!("a request");
            };
            spawn_local(async move { while let Ok(Some(_)) = connection.next().await {} });
            TunnelIo::new(responder.accept())
        });
        let (mut requests, connection) = h2::client::handshake(near).await.unwrap();
        spawn_local(async move { drop(connection.await) });
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = "10.0.0.1:80".parse().unwrap();
        let (response, send) = requests.send_request(request, false).unwrap();
        let receive = response.await.unwrap().into_body();
        let downstream = accepting.await.unwrap();
        let serving = spawn_local(async move {
            let meter = Meter::default();
            let dialled = RequestStream::for_test(dialled);
            match serve(downstream, dialled, &judge, HttpLimits::default(), &meter).await {
                ServeOutcome::Ended => {}
                ServeOutcome::NotHttp(opaque) => {
                    let application = opaque.application.per_request();
                    let application = application.into_tcp_for_test();
                    let ahead = Ahead {
                        from_client: opaque.read,
                        from_server: Bytes::new(),
                    };
                    let relaying = opaque
                        .downstream
                        .relay(application, ahead, &meter, |_, _| false);
                    relaying.await;
                }
            }
        });
        Self {
            send,
            receive,
            application,
            gate,
            serving,
        }
    }

    async fn expect(&mut self, expected: &str) {
        let mut got = Vec::new();
        while got.len() < expected.len() {
            let data = self.receive.data().await.unwrap().unwrap();
            let _ = self.receive.flow_control().release_capacity(data.len());
            got.extend_from_slice(&data);
        }
        assert_eq!(String::from_utf8_lossy(&got), expected);
    }

    async fn ensure_ended(&mut self) {
        while let Some(data) = self.receive.data().await {
            assert_eq!(data.unwrap(), "");
        }
    }
}

#[test]
fn requests_through_a_tunnel_are_served_and_ended_in_order() {
    run(async {
        let mut tunnelled = Tunnelled::new().await;
        tunnelled.send.send_data(GET.into(), false).unwrap();
        expect(&mut tunnelled.application, SENT).await;
        tunnelled
            .application
            .write_all(OK.as_bytes())
            .await
            .unwrap();
        tunnelled.expect(OK).await;
        tunnelled.send.send_data(Bytes::new(), true).unwrap();
        tunnelled.ensure_ended().await;
        assert_eq!(read_to_end(&mut tunnelled.application).await, "");
        tunnelled.serving.await.unwrap();
    });
}

#[test]
fn an_abort_through_a_tunnel_is_not_an_orderly_end_for_the_application() {
    run(async {
        let mut tunnelled = Tunnelled::new().await;
        tunnelled.send.send_data(GET.into(), false).unwrap();
        expect(&mut tunnelled.application, SENT).await;
        tunnelled.send.send_reset(Reason::CANCEL);
        ensure_reset(&mut tunnelled.application).await;
        assert_eq!(tunnelled.gate.outcomes(), [RequestOutcome::ClientFailed]);
    });
}

#[test]
fn an_abort_behind_the_clients_end_is_noticed() {
    run(async {
        let mut tunnelled = Tunnelled::new().await;
        tunnelled.send.send_data(GET.into(), true).unwrap();
        expect(&mut tunnelled.application, SENT).await;
        assert_eq!(read_to_end(&mut tunnelled.application).await, "");
        tunnelled.send.send_reset(Reason::CANCEL);
        tunnelled.serving.await.unwrap();
        assert_eq!(tunnelled.gate.outcomes(), [RequestOutcome::ClientFailed]);
    });
}

#[test]
fn an_abort_is_noticed_while_the_application_reads_nothing() {
    run(async {
        let mut tunnelled = Tunnelled::new().await;
        let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999\r\n\r\n";
        tunnelled.send.send_data(head.into(), false).unwrap();
        expect(&mut tunnelled.application, "POST / HTTP/1.1\r\nhost: a\r\n").await;
        loop {
            tunnelled.send.reserve_capacity(16 << 10);
            let room = std::future::poll_fn(|context| tunnelled.send.poll_capacity(context));
            let Ok(room) = timeout(Duration::from_millis(300), room).await else {
                break;
            };
            let room = room.expect("an open tunnel").expect("an open tunnel");
            let data = Bytes::from(vec![0; room]);
            tunnelled.send.send_data(data, false).unwrap();
        }
        tunnelled.send.send_reset(Reason::CANCEL);
        tunnelled.serving.await.unwrap();
        assert_eq!(tunnelled.gate.outcomes(), [RequestOutcome::ClientFailed]);
    });
}

/// CANCEL would overtake what was sent before, at the caller's agent.
#[test]
fn an_application_that_breaks_off_is_a_reset_in_order_through_the_tunnel() {
    const REST: usize = 48 << 10;
    run(async {
        for (head, passed_on) in [
            (
                "HTTP/1.1 200 OK\r\n\r\n",
                "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n",
                "HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n",
            ),
        ] {
            let mut tunnelled = Tunnelled::new().await;
            tunnelled.send.send_data(GET.into(), false).unwrap();
            expect(&mut tunnelled.application, SENT).await;
            let answer = [head.as_bytes(), &[b'x'; REST]].concat();
            tunnelled.application.write_all(&answer).await.unwrap();
            tunnelled.application.set_zero_linger().unwrap();
            drop(tunnelled.application);
            let mut read = 0;
            let broken = loop {
                match tunnelled.receive.data().await {
                    Some(Ok(data)) => read += data.len(),
                    Some(Err(error)) => break error.reason(),
                    None => break None,
                }
            };
            assert_eq!(read, passed_on.len() + REST);
            assert_eq!(broken, Some(Reason::CONNECT_ERROR));
            tunnelled.serving.await.unwrap();
        }
    });
}

#[test]
fn an_upgrade_is_carried_through_the_tunnel_with_what_follows_its_heads() {
    use super::upgrade::{AGREED, OFFER, OFFERED};
    run(async {
        let mut tunnelled = Tunnelled::new().await;
        let offer = format!("{OFFER}early");
        tunnelled.send.send_data(offer.into(), false).unwrap();
        expect(&mut tunnelled.application, OFFERED).await;
        let agreed = format!("{AGREED}hello");
        tunnelled
            .application
            .write_all(agreed.as_bytes())
            .await
            .unwrap();
        tunnelled.expect(&agreed).await;
        expect(&mut tunnelled.application, "early").await;
        tunnelled.send.send_data("ping".into(), false).unwrap();
        expect(&mut tunnelled.application, "ping").await;
        tunnelled.application.write_all(b"last").await.unwrap();
        tunnelled.application.set_zero_linger().unwrap();
        drop(tunnelled.application);
        let last = tunnelled.receive.data().await.unwrap().unwrap();
        assert_eq!(last, "last");
        let broken = tunnelled.receive.data().await.unwrap().unwrap_err();
        assert_eq!(broken.reason(), Some(Reason::CONNECT_ERROR));
        tunnelled.serving.await.unwrap();
        assert_eq!(
            tunnelled.gate.outcomes(),
            [RequestOutcome::ApplicationFailed]
        );
    });
}

#[test]
fn a_revoked_request_is_an_abort_through_the_tunnel() {
    run(async {
        let mut tunnelled = Tunnelled::new().await;
        tunnelled.send.send_data(GET.into(), false).unwrap();
        expect(&mut tunnelled.application, SENT).await;
        tunnelled.gate.revoke();
        let aborted = tunnelled.receive.data().await.unwrap().unwrap_err();
        assert_eq!(aborted.reason(), Some(Reason::CANCEL));
        ensure_reset(&mut tunnelled.application).await;
    });
}

#[test]
fn small_frames_that_are_not_read_do_not_close_the_tunnel() {
    run(async {
        let mut tunnelled = Tunnelled::new().await;
        let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999\r\n\r\n";
        tunnelled.send.send_data(head.into(), false).unwrap();
        expect(&mut tunnelled.application, "POST / HTTP/1.1\r\nhost: a\r\n").await;
        // Fewer than h2 lets wait, if each burst is taken in before the next.
        let (frame, burst) = (Bytes::from_static(&[0; 16]), 64);
        let mut written = 0;
        loop {
            tunnelled.send.reserve_capacity(burst * frame.len());
            let room = std::future::poll_fn(|context| tunnelled.send.poll_capacity(context));
            let Ok(room) = timeout(Duration::from_millis(300), room).await else {
                break;
            };
            let room = room.expect("an open tunnel").expect("an open tunnel");
            for _ in 0..room / frame.len() {
                tunnelled.send.send_data(frame.clone(), false).unwrap();
            }
            written += room;
            assert!(written < 4 << 20, "taken, and not read");
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        }
        let reset = std::future::poll_fn(|context| tunnelled.send.poll_reset(context));
        assert!(timeout(Duration::from_millis(100), reset).await.is_err());
    });
}

#[test]
fn a_connection_without_http_is_relayed_once_it_is_allowed() {
    run(async {
        let mut tunnelled = Tunnelled::new().await;
        tunnelled
            .send
            .send_data("*1\r\n$4\r\nPING\r\n".into(), false)
            .unwrap();
        expect(&mut tunnelled.application, "*1\r\n$4\r\nPING\r\n").await;
        tunnelled.application.write_all(b"+PONG\r\n").await.unwrap();
        tunnelled.expect("+PONG\r\n").await;
        tunnelled.send.send_data(Bytes::new(), true).unwrap();
        assert_eq!(read_to_end(&mut tunnelled.application).await, "");
        tunnelled.application.shutdown().await.unwrap();
        tunnelled.ensure_ended().await;
        tunnelled.serving.await.unwrap();
    });
}

#[test]
fn a_client_that_breaks_http_2_gets_goaway_and_an_orderly_end() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    /// A PING that is too short, and more bytes than are read before it is refused.
    const PING: [u8; 16] = [0, 0, 7, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7];
    run(async {
        let mut tunnelled = Tunnelled::new().await;
        let sent = [PREFACE, &SETTINGS, &PING, &[0; 1000]].concat();
        tunnelled.send.send_data(sent.into(), false).unwrap();
        let mut got = Vec::new();
        while let Some(data) = tunnelled.receive.data().await {
            got.extend_from_slice(&data.unwrap());
        }
        let mut rest = &got[..];
        let mut frames = Vec::new();
        while let [a, b, c, kind, ..] = rest {
            frames.push(*kind);
            rest = &rest[9 + usize::from(*a) * 65536 + usize::from(*b) * 256 + usize::from(*c)..];
        }
        assert_eq!(frames.last(), Some(&7), "{frames:?}");
        // It is read until the client has ended its side, too: a reset could overtake GOAWAY.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let reset = std::future::poll_fn(|context| {
            std::task::Poll::Ready(tunnelled.send.poll_reset(context))
        });
        assert!(reset.await.is_pending());
        tunnelled.send.send_data(Bytes::new(), true).unwrap();
        tunnelled.serving.await.unwrap();
    });
}
