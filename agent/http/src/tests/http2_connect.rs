//! Extended CONNECT (RFC 8441): other protocols on a stream of HTTP/2.

use h2::ext::Protocol;
use http::{Method, Request, Response};

use super::http2::{Streams, read_all};
use super::*;

fn connect(path: &str, protocol: &'static str) -> Request<()> {
    let uri = format!("http://a.com{path}");
    let connect = Request::builder().method(Method::CONNECT).uri(uri);
    let connect = connect.extension(Protocol::from_static(protocol));
    connect.body(()).unwrap()
}

/// With an application that announces extended CONNECT.
async fn announced() -> Streams {
    let mut builder = h2::server::Builder::new();
    builder.enable_connect_protocol();
    Streams::with(builder).await
}

#[test]
fn it_is_judged_by_its_path_and_bytes_pass_both_ways() {
    run(async {
        let mut streams = announced().await;
        let request = connect("/chat", "websocket");
        let (response, mut to_server) = streams.client.send_request(request, false).unwrap();
        let (request, mut respond) = streams.arrive().await;
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(request.uri().path(), "/chat");
        let protocol = request.extensions().get::<Protocol>().unwrap();
        assert_eq!(protocol.as_str(), "websocket");
        let mut from_client = request.into_body();
        let mut to_client = respond.send_response(Response::new(()), false).unwrap();
        let mut from_server = response.await.unwrap().into_body();
        for _ in 0..3 {
            to_server.send_data("ping".into(), false).unwrap();
            assert_eq!(from_client.data().await.unwrap().unwrap(), "ping");
            to_client.send_data("pong".into(), false).unwrap();
            assert_eq!(from_server.data().await.unwrap().unwrap(), "pong");
        }
        // Each side ends on its own.
        to_server.send_data(Bytes::new(), true).unwrap();
        assert_eq!(read_all(&mut from_client).await.unwrap(), b"");
        to_client.send_data("last".into(), true).unwrap();
        assert_eq!(from_server.data().await.unwrap().unwrap(), "last");
        let head = streams.gate.0.heads.borrow()[0].clone();
        assert_eq!((head.method, &*head.target), (Method::GET, "/chat"));
        assert_eq!(head.headers["upgrade"], "websocket");
    });
}

#[test]
fn it_is_denied_as_an_upgrade_is() {
    run(async {
        let mut streams = announced().await;
        let request = connect("/denied", "websocket");
        let (response, _body) = streams.client.send_request(request, false).unwrap();
        assert_eq!(response.await.unwrap().status(), StatusCode::FORBIDDEN);
        assert!(streams.arrived.try_recv().is_err());
    });
}

#[test]
fn it_ends_with_its_permit() {
    run(async {
        let mut streams = announced().await;
        let request = connect("/chat", "websocket");
        let (response, _to_server) = streams.client.send_request(request, false).unwrap();
        let (request, mut respond) = streams.arrive().await;
        let _to_client = respond.send_response(Response::new(()), false).unwrap();
        let mut from_server = response.await.unwrap().into_body();
        streams.gate.revoke();
        assert!(from_server.data().await.unwrap().is_err());
        assert!(request.into_body().data().await.unwrap().is_err());
    });
}

#[test]
fn without_the_application_it_is_501_and_other_streams_continue() {
    run(async {
        let mut streams = Streams::new().await;
        let (running, _body, (_request, mut respond)) = streams.open().await;
        for (protocol, path) in [("websocket", "/chat"), ("h2c", "/chat")] {
            let request = connect(path, protocol);
            let (response, _) = streams.client.send_request(request, false).unwrap();
            let status = response.await.unwrap().status();
            assert_eq!(status, StatusCode::NOT_IMPLEMENTED, "{protocol}");
        }
        respond.send_response(Response::new(()), true).unwrap();
        assert_eq!(running.await.unwrap().status(), StatusCode::OK);
    });
}
