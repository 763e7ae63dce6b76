//! h2 as the peer.

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{Method, Request, Response};

use super::*;

const LENGTH: usize = 3 << 20;

fn connect_request() -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = "[fd00::1]:8080".parse().unwrap();
    let forwarded = "for=\"10.0.0.1:1\"".parse().unwrap();
    request.headers_mut().insert("forwarded", forwarded);
    request
}

async fn send_all(mut stream: SendStream<Bytes>, data: Vec<u8>) {
    let mut data = Bytes::from(data);
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = poll_fn(|context| stream.poll_capacity(context))
            .await
            .unwrap()
            .unwrap();
        stream
            .send_data(data.split_to(room.min(data.len())), false)
            .unwrap();
    }
    stream.send_data(Bytes::new(), true).unwrap();
}

async fn receive_all(mut stream: RecvStream) -> Vec<u8> {
    let mut received = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        received.extend_from_slice(&data);
    }
    received
}

async fn exchange(ours: &Stream, send_theirs: SendStream<Bytes>, receive_theirs: RecvStream) {
    let (up, down) = (payload(LENGTH), payload(LENGTH - 1));
    let sending = async {
        send(ours, &up).await.unwrap();
        ours.finish();
    };
    let (_, _, at_theirs, at_ours) = tokio::join!(
        sending,
        send_all(send_theirs, down.clone()),
        receive_all(receive_theirs),
        receive(ours)
    );
    assert!(at_theirs == up && at_ours.0 == down && at_ours.1.is_ok());
}

#[test]
fn its_client_is_served() {
    run(async || {
        let (near, far) = duplex(NETWORK);
        let mut connection = accept(PlainWire::new(far), ample(), KEEP);
        let (requests, driver) = h2::client::handshake(near).await.unwrap();
        spawn_local(async move { drop(driver.await) });
        for _ in 0..3 {
            let mut requests = requests.clone().ready().await.unwrap();
            let (response, sender) = requests.send_request(connect_request(), false).unwrap();
            let incoming = connection.next().await.unwrap();
            let Some(Incoming::Request(head, responder)) = incoming else {
                panic!("a request");
            };
            assert_eq!(head.method, "CONNECT");
            assert_eq!(head.authority.as_deref(), Some("[fd00::1]:8080"));
            assert_eq!(head.forwarded.as_deref(), Some(&b"for=\"10.0.0.1:1\""[..]));
            let ours = responder.accept();
            let theirs = async {
                let response = response.await.unwrap();
                exchange(&ours, sender, response.into_body()).await;
            };
            tokio::select! {
                () = theirs => {}
                next = connection.next() => panic!("{next:?}"),
            }
        }
    });
}

#[test]
fn its_server_serves() {
    run(async || {
        let (near, far) = duplex(NETWORK);
        let (opener, connection) = connect(PlainWire::new(near), ample(), KEEP);
        spawn_local(serve(connection));
        let mut server = h2::server::handshake(far).await.unwrap();
        for _ in 0..3 {
            let ours = opener.open("10.0.0.1:80", "for=\"10.0.0.2:1\"").unwrap();
            let (request, mut respond) = server.accept().await.unwrap().unwrap();
            assert_eq!(request.method(), Method::CONNECT);
            assert_eq!(request.uri().authority().unwrap(), "10.0.0.1:80");
            assert_eq!(request.headers()["forwarded"], "for=\"10.0.0.2:1\"");
            let sender = respond.send_response(Response::new(()), false).unwrap();
            let theirs = async {
                assert_eq!(ours.answered().await.unwrap(), 200);
                exchange(&ours, sender, request.into_body()).await;
            };
            tokio::select! {
                () = theirs => {}
                next = server.accept() => panic!("{next:?}"),
            }
        }
    });
}

#[test]
fn its_refusals_and_resets_are_understood() {
    run(async || {
        let (near, far) = duplex(NETWORK);
        let (opener, connection) = connect(PlainWire::new(near), ample(), KEEP);
        spawn_local(serve(connection));
        let mut server = h2::server::Builder::new()
            .max_concurrent_streams(7)
            .handshake::<_, Bytes>(far)
            .await
            .unwrap();
        let denied = opener.open("10.0.0.1:80", "").unwrap();
        let (_, mut respond) = server.accept().await.unwrap().unwrap();
        let status = Response::builder().status(401).body(()).unwrap();
        respond.send_response(status, true).unwrap();
        let reset = opener.open("10.0.0.1:80", "").unwrap();
        let (_, mut respond) = server.accept().await.unwrap().unwrap();
        respond.send_reset(h2::Reason::REFUSED_STREAM);
        spawn_local(async move { while server.accept().await.is_some() {} });
        assert_eq!(denied.answered().await.unwrap(), 401);
        assert!(reset.answered().await.unwrap_err().is_unprocessed());
        drop((denied, reset));
        let open: Vec<Stream> = (0..7)
            .map(|_| opener.open("10.0.0.1:80", "").unwrap())
            .collect();
        assert!(!opener.has_room());
        drop(open);
        assert!(opener.has_room());
    });
}
