//! HTTP/1 to an application made with hyper.

use std::convert::Infallible;

use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::super::decode_chunks;
use super::*;

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// Echoes the body, responds before it has read it (`/early`), or echoes after an upgrade
/// (`/upgrade`).
async fn application(mut request: Request<Incoming>) -> Result<Answer, Infallible> {
    let of = |text: &'static str| Full::from(text).map_err(|never| match never {}).boxed();
    Ok(match request.uri().path() {
        "/early" => Response::new(of("early")),
        "/upgrade" => {
            let upgrading = hyper::upgrade::on(&mut request);
            spawn_local(async move {
                let stream = TokioIo::new(upgrading.await.unwrap());
                let (mut read, mut write) = tokio::io::split(stream);
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
            let switching = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
            let switching = switching.header("connection", "upgrade");
            switching
                .header("upgrade", "websocket")
                .body(of(""))
                .unwrap()
        }
        _ => Response::new(request.into_body().boxed()),
    })
}

/// A served connection's client, and the gate that judges its requests.
async fn served() -> (TcpStream, TestGate) {
    let scene = Scene::new().await;
    let stream = TokioIo::new(scene.application);
    spawn_local(async move {
        let mut http = hyper::server::conn::http1::Builder::new();
        // By default, hyper takes a client that has ended its side for one that is gone.
        http.half_close(true);
        let serving = http.serve_connection(stream, service_fn(application));
        let _ = serving.with_upgrades().await;
    });
    (scene.client, scene.gate)
}

/// Reads a head, and the part of the body that came with it.
async fn read_head(client: &mut TcpStream) -> (String, Vec<u8>) {
    let mut got = Vec::new();
    loop {
        if let Some(end) = got.windows(4).position(|part| part == b"\r\n\r\n") {
            let body = got.split_off(end + 4);
            return (String::from_utf8(got).unwrap(), body);
        }
        assert_ne!(client.read_buf(&mut got).await.unwrap(), 0);
    }
}

#[test]
fn large_bodies_pass_both_ways_at_the_same_time() {
    run(async {
        let (client, _gate) = served().await;
        let (mut read, mut write) = client.into_split();
        let large: Vec<u8> = (0..LARGE).map(|index| (index % 251) as u8).collect();
        let sent = large.clone();
        spawn_local(async move {
            let head = format!("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {LARGE}\r\n\r\n");
            write.write_all(head.as_bytes()).await.unwrap();
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut answer = Vec::new();
        read.read_to_end(&mut answer).await.unwrap();
        let head = answer
            .windows(4)
            .position(|part| part == b"\r\n\r\n")
            .unwrap()
            + 4;
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
        let (head, body) = answer.split_at(head);
        let is_chunked = String::from_utf8_lossy(head).contains("chunked");
        let body = match is_chunked {
            true => decode_chunks(&[body], 0x1000).unwrap().data,
            false => body.to_vec(),
        };
        assert!(body == large);
    });
}

#[test]
fn three_pipelined_requests_are_answered() {
    run(async {
        let (mut client, gate) = served().await;
        let mut sent = String::new();
        for text in ["one", "two", "six"] {
            sent += &format!("POST /{text} HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n{text}");
        }
        client.write_all(sent.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let answers = read_to_end(&mut client).await;
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3);
        let order: Vec<_> = ["one", "two", "six"]
            .map(|text| answers.find(text).unwrap())
            .into();
        assert!(order.is_sorted());
        assert_eq!(gate.targets(), ["/one", "/two", "/six"]);
    });
}

#[test]
fn an_early_response_is_passed_on() {
    run(async {
        let (mut client, _gate) = served().await;
        let head = format!("POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: {LARGE}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&[0; 1000]).await.unwrap();
        let (head, _) = read_head(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    });
}

#[test]
fn an_upgraded_connection_echoes() {
    run(async {
        let (mut client, _gate) = served().await;
        let offer =
            "GET /upgrade HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        client.write_all(offer.as_bytes()).await.unwrap();
        let (head, _) = read_head(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        client.write_all(b"ping").await.unwrap();
        expect(&mut client, "ping").await;
        client.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut client).await, "");
    });
}
