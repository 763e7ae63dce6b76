//! HTTP/2 connections that take no more requests, that break off, and that carry many streams.

use h2::Reason;
use http::Response;
use tokio::sync::mpsc;

use super::http2::{Streams, post, read_all};
use super::*;

/// More streams than some servers allow by default.
const MANY: usize = 600;

#[test]
fn an_applications_goaway_is_passed_on_at_once_and_open_streams_continue() {
    run(async {
        let mut streams = Streams::new().await;
        let (running, _body, (_request, mut respond)) = streams.open().await;
        streams.drain.send_replace(true);
        // No request makes the agent notice.
        while streams.client.clone().ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        respond.send_response(Response::new(()), true).unwrap();
        assert_eq!(running.await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn requests_that_come_before_the_client_has_seen_goaway_go_over_another_connection() {
    run(async {
        let mut streams = Streams::new().await;
        let (running, _body, (_request, mut first)) = streams.open().await;
        let mut arrived = std::mem::replace(&mut streams.arrived, mpsc::unbounded_channel().1);
        spawn_local(async move {
            while let Some((_, mut respond)) = arrived.recv().await {
                respond.send_response(Response::new(()), true).unwrap();
            }
        });
        streams.drain.send_replace(true);
        let mut answered = 0;
        while let Ok(mut ready) = streams.client.clone().ready().await {
            let (response, _) = ready.send_request(post("http://a.com/x"), true).unwrap();
            assert_eq!(response.await.unwrap().status(), StatusCode::OK);
            answered += 1;
        }
        assert!(answered > 0);
        first.send_response(Response::new(()), true).unwrap();
        assert_eq!(running.await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn requests_that_no_connection_takes_may_be_sent_again() {
    run(async {
        let mut streams = Streams::new().await;
        *streams.gate.0.reconnected.borrow_mut() = None;
        let (_running, _body, _arrived) = streams.open().await;
        streams.drain.send_replace(true);
        while let Ok(mut ready) = streams.client.clone().ready().await {
            let (response, _) = ready.send_request(post("http://a.com/x"), true).unwrap();
            tokio::select! {
                refused = response => {
                    let refused = refused.unwrap_err();
                    assert!(refused.is_go_away() || refused.reason() == Some(Reason::REFUSED_STREAM));
                }
                arrived = streams.arrived.recv() => {
                    let (_, mut respond) = arrived.unwrap();
                    respond.send_response(Response::new(()), true).unwrap();
                }
            }
        }
    });
}

#[test]
fn many_streams_are_open_at_the_same_time() {
    run(async {
        let mut streams = Streams::new().await;
        // The client learns its limit by the first response.
        let (first, _body, (_, mut respond)) = streams.open().await;
        respond.send_response(Response::new(()), true).unwrap();
        first.await.unwrap();
        let mut open = Vec::new();
        for _ in 0..MANY {
            open.push(streams.open().await);
        }
        for (response, _body, (_request, mut respond)) in open {
            respond.send_response(Response::new(()), true).unwrap();
            assert_eq!(response.await.unwrap().status(), StatusCode::OK);
        }
    });
}

#[test]
fn what_an_application_sent_before_it_broke_off_arrives_at_a_slow_reader() {
    run(async {
        let scene = Scene::new().await;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1000);
        let (mut client, connection) = builder.handshake::<_, Bytes>(scene.client).await.unwrap();
        spawn_local(async move { drop(connection.await) });
        let (response, _) = client.send_request(post("http://a.com/x"), true).unwrap();
        let (reset, resets) = tokio::sync::oneshot::channel::<()>();
        scene.application.set_zero_linger().unwrap();
        spawn_local(async move {
            let mut connection = h2::server::handshake(scene.application).await.unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            send.send_data(Bytes::from(vec![7; 50_000]), false).unwrap();
            // Until it is told to, it serves its connection; then that is reset.
            tokio::select! {
                _ = connection.accept() => {}
                _ = resets => {}
            }
        });
        let mut answer = response.await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(reset);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut got = 0;
        let broken = loop {
            match answer.body_mut().data().await.unwrap() {
                Ok(data) => {
                    got += data.len();
                    answer
                        .body_mut()
                        .flow_control()
                        .release_capacity(data.len())
                        .unwrap();
                }
                Err(error) => break error,
            }
        };
        assert_eq!(
            (got, broken.reason()),
            (50_000, Some(Reason::INTERNAL_ERROR))
        );
    });
}

#[test]
fn a_head_that_was_sent_before_a_reset_arrives() {
    run(async {
        let mut streams = Streams::new().await;
        for _ in 0..20 {
            let (response, _body, (_request, mut respond)) = streams.open().await;
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            send.send_data("abc".into(), false).unwrap();
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(2)).await;
            send.send_reset(Reason::ENHANCE_YOUR_CALM);
            let mut answer = response.await.unwrap().into_body();
            assert_eq!(answer.data().await.unwrap().unwrap(), "abc");
            let reset = read_all(&mut answer).await.unwrap_err();
            assert_eq!(reset.reason(), Some(Reason::ENHANCE_YOUR_CALM));
        }
    });
}
