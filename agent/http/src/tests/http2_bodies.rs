//! HTTP/2 bodies that are read while their requests are judged.

use http::HeaderValue;

use super::http2::{Streams, post, read_all, send_all};
use super::*;

fn showing(uri: &str, wanted: &'static str) -> http::Request<()> {
    let mut request = post(uri);
    let wanted = HeaderValue::from_static(wanted);
    request.headers_mut().insert("x-show", wanted);
    request
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(
        http::HeaderName::from_static("x-sum"),
        HeaderValue::from_static("1"),
    )])
}

#[test]
fn a_body_that_the_gate_read_is_passed_on_whole_with_its_trailers() {
    run(async {
        for wanted in ["1", "5", "99"] {
            let mut streams = Streams::new().await;
            let request = showing("http://a/x", wanted);
            let (_response, mut body) = streams.client.send_request(request, false).unwrap();
            body.send_data("hello".into(), false).unwrap();
            body.send_trailers(trailers()).unwrap();
            let (request, _respond) = streams.arrive().await;
            let mut received = request.into_body();
            assert_eq!(read_all(&mut received).await.unwrap(), b"hello");
            let sum = received.trailers().await.unwrap().unwrap();
            assert_eq!(sum["x-sum"], "1");
            assert_eq!(streams.gate.shown(), [Ok("hello".to_owned())]);
        }
    });
}

#[test]
fn a_body_without_trailers_and_an_empty_body_end() {
    run(async {
        let mut streams = Streams::new().await;
        for (body, wanted) in [("hello", "2"), ("hello", "99"), ("", "99")] {
            let request = showing("http://a/x", wanted);
            let is_empty = body.is_empty();
            let (_response, mut send) = streams.client.send_request(request, is_empty).unwrap();
            if !is_empty {
                send.send_data(body.into(), true).unwrap();
            }
            let (request, _respond) = streams.arrive().await;
            assert_eq!(request.body().is_end_stream(), is_empty);
            let received = read_all(&mut request.into_body()).await.unwrap();
            assert_eq!(received, body.as_bytes());
            let shown = streams.gate.shown().pop().unwrap();
            assert_eq!(shown, Ok(body.to_owned()));
        }
    });
}

/// The gate reads more than a stream's window, and more than a connection's window follows.
#[test]
fn a_large_body_arrives_intact_after_the_part_that_the_gate_read() {
    run(async {
        let mut streams = Streams::new().await;
        let body: Vec<u8> = (0..LARGE).map(|place| (place % 251) as u8).collect();
        for wanted in ["8192", "1000000"] {
            let request = showing("http://a/x", wanted);
            let (_response, mut send) = streams.client.send_request(request, false).unwrap();
            let sending = async {
                send_all(&mut send, Bytes::copy_from_slice(&body)).await;
                send.send_data(Bytes::new(), true).unwrap();
            };
            let receiving = async {
                let (request, respond) = streams.arrived.recv().await.unwrap();
                let received = read_all(&mut request.into_body()).await.unwrap();
                (received, respond)
            };
            let ((), (received, _respond)) = tokio::join!(sending, receiving);
            assert!(received == body);
        }
    });
}

#[test]
fn a_client_that_expects_100_continue_gets_it() {
    run(async {
        let mut streams = Streams::new().await;
        let mut request = showing("http://a/x", "5");
        let expect = HeaderValue::from_static("100-continue");
        request.headers_mut().insert("expect", expect);
        let (mut response, mut body) = streams.client.send_request(request, false).unwrap();
        let told = std::future::poll_fn(|context| response.poll_informational(context)).await;
        assert_eq!(told.unwrap().unwrap().status(), StatusCode::CONTINUE);
        body.send_data("hello".into(), true).unwrap();
        let (request, _respond) = streams.arrive().await;
        assert!(!request.headers().contains_key("expect"));
        assert_eq!(read_all(&mut request.into_body()).await.unwrap(), b"hello");
    });
}

#[test]
fn a_rejected_client_that_expects_100_continue_gets_the_response() {
    run(async {
        let mut streams = Streams::new().await;
        let mut request = post("http://a/denied");
        let expect = HeaderValue::from_static("100-continue");
        request.headers_mut().insert("expect", expect);
        let (mut response, mut body) = streams.client.send_request(request, false).unwrap();
        let told = std::future::poll_fn(|context| response.poll_informational(context)).await;
        assert!(told.is_none());
        assert_eq!(response.await.unwrap().status(), StatusCode::FORBIDDEN);
        let reset = std::future::poll_fn(|context| body.poll_reset(context)).await;
        assert_eq!(reset.unwrap(), h2::Reason::NO_ERROR);
    });
}

#[test]
fn a_body_that_breaks_off_is_not_passed_on() {
    run(async {
        let mut streams = Streams::new().await;
        let request = showing("http://a/broken", "99");
        let (_response, mut body) = streams.client.send_request(request, false).unwrap();
        body.send_data("hello".into(), false).unwrap();
        body.send_reset(h2::Reason::CANCEL);
        let (_response, mut body) = streams
            .client
            .send_request(showing("http://a/denied", "1"), false)
            .unwrap();
        body.send_data("hello".into(), false).unwrap();
        let (response, _) = streams
            .client
            .send_request(post("http://a/after"), true)
            .unwrap();
        let (request, mut respond) = streams.arrive().await;
        assert_eq!(request.uri().path(), "/after");
        respond
            .send_response(http::Response::new(()), true)
            .unwrap();
        assert_eq!(response.await.unwrap().status(), StatusCode::OK);
    });
}
