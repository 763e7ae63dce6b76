//! HTTP/1 bodies that are read while their requests are judged. [`super::http2_bodies`] has the tests for
//! HTTP/2.

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const SENT: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

fn shown(scene: &Scene) -> Vec<String> {
    let shown = scene.gate.shown().into_iter();
    shown.map(|shown| shown.unwrap()).collect()
}

/// Waits until a request is being judged. The application has received no byte of it.
async fn ensure_unsent(scene: &Scene) {
    while scene.gate.targets().is_empty() {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let read = scene.application.try_read(&mut [0]);
    assert_eq!(read.unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_body_that_the_gate_read_is_passed_on_whole_before_the_next_request() {
    run(async {
        let mut scene = Scene::new().await;
        for (wanted, seen) in [(2, "hello"), (5, "hello"), (99, "hello")] {
            let sent = format!(
                "POST / HTTP/1.1\r\nhost: a\r\nx-show: {wanted}\r\ncontent-length: 5\r\n\r\nhello"
            );
            let got = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
            scene.pass(&sent, got).await;
            scene.answer(OK, OK).await;
            assert_eq!(shown(&scene).last().unwrap(), seen);
        }
        scene.pass(GET, SENT).await;
        assert_eq!(scene.meter.sent(), 15);
    });
}

#[test]
fn no_byte_is_passed_on_before_the_gate_has_read_what_it_wants() {
    run(async {
        let mut scene = Scene::new().await;
        let begun = "POST / HTTP/1.1\r\nhost: a\r\nx-show: 4\r\ncontent-length: 8\r\n\r\nabc";
        scene.client.write_all(begun.as_bytes()).await.unwrap();
        ensure_unsent(&scene).await;
        scene
            .pass(
                "d",
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\nabcd",
            )
            .await;
        scene.pass("efgh", "efgh").await;
        assert_eq!(shown(&scene), ["abcd"]);
    });
}

#[test]
fn chunks_and_trailers_are_passed_on_after_the_part_that_the_gate_read() {
    run(async {
        let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n";
        let got = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunks = "3\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 1\r\nhost: b\r\n\r\n";
        for (wanted, seen, passed) in [
            (1, "abc", "3\r\nabc\r\n2\r\nde\r\n"),
            (4, "abcde", "5\r\nabcde\r\n"),
            (9, "abcde", "5\r\nabcde\r\n"),
        ] {
            let mut scene = Scene::new().await;
            let sent = format!("{head}X-Show: {wanted}\r\n\r\n{chunks}");
            scene
                .pass(&sent, &format!("{got}{passed}0\r\nx-sum: 1\r\n\r\n"))
                .await;
            scene.answer(OK, OK).await;
            assert_eq!(shown(&scene), [seen]);
            scene.pass(GET, SENT).await;
        }
    });
}

#[test]
fn a_request_without_a_body_is_not_waited_for() {
    run(async {
        let mut scene = Scene::new().await;
        for sent in [
            "GET / HTTP/1.1\r\nhost: a\r\nx-show: 9\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nx-show: 9\r\nexpect: 100-continue\r\n\r\n",
        ] {
            scene.client.write_all(sent.as_bytes()).await.unwrap();
            expect(&mut scene.application, "GET / HTTP/1.1\r\nhost: a\r\n").await;
            scene
                .application
                .read_buf(&mut Vec::with_capacity(99))
                .await
                .unwrap();
            scene.answer(OK, OK).await;
        }
        assert_eq!(shown(&scene), ["", ""]);
    });
}

#[test]
fn a_client_that_expects_100_continue_gets_it_once() {
    run(async {
        let mut scene = Scene::new().await;
        let head = "POST / HTTP/1.1\r\nhost: a\r\nx-show: 9\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
        scene.client.write_all(head.as_bytes()).await.unwrap();
        expect(&mut scene.client, CONTINUE).await;
        ensure_unsent(&scene).await;
        let got = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
        scene.pass("hello", got).await;
        scene.answer(OK, OK).await;
        assert_eq!(shown(&scene), ["hello"]);
    });
}

#[test]
fn no_other_client_gets_100_continue() {
    run(async {
        let mut scene = Scene::new().await;
        let head =
            "POST /denied HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
        scene.client.write_all(head.as_bytes()).await.unwrap();
        assert!(
            read_to_end(&mut scene.client)
                .await
                .starts_with("HTTP/1.1 403 ")
        );
        scene.client.shutdown().await.unwrap();
        scene.ensure_nothing_sent().await;
    });
}

#[test]
fn the_rest_of_a_denied_requests_body_is_not_read_as_a_request() {
    run(async {
        let mut scene = Scene::new().await;
        let inner = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
        let outer = format!(
            "POST /denied HTTP/1.1\r\nhost: a\r\nx-show: 3\r\ncontent-length: {}\r\n\r\n",
            inner.len()
        );
        scene.client.write_all(outer.as_bytes()).await.unwrap();
        let (first, rest) = inner.split_at(7);
        scene.client.write_all(first.as_bytes()).await.unwrap();
        expect(
            &mut scene.client,
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 19\r\n\r\n",
        )
        .await;
        expect(&mut scene.client, "RBAC: access denied").await;
        scene.pass(&format!("{rest}{GET}"), SENT).await;
        assert_eq!(scene.gate.targets(), ["/denied", "/"]);
    });
}

#[test]
fn a_denied_requests_chunks_end_the_connection_unless_all_have_arrived() {
    run(async {
        let head =
            "POST /denied HTTP/1.1\r\nhost: a\r\nx-show: 9\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut scene = Scene::new().await;
        let all = format!("{head}1\r\na\r\n0\r\n\r\n");
        scene.client.write_all(all.as_bytes()).await.unwrap();
        expect(
            &mut scene.client,
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 19\r\n\r\n",
        )
        .await;
        expect(&mut scene.client, "RBAC: access denied").await;
        scene.pass(GET, SENT).await;

        let mut scene = Scene::new().await;
        let some = format!("{head}a\r\n0123456789\r\n24\r\n{GET}");
        scene.client.write_all(some.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut scene.client).await;
        scene.client.shutdown().await.unwrap();
        assert!(answer.contains("connection: close"), "{answer}");
        assert_eq!(scene.gate.targets(), ["/denied"]);
        scene.ensure_nothing_sent().await;
    });
}

#[test]
fn a_malformed_body_is_refused_before_a_byte_of_the_request_is_passed_on() {
    run(async {
        for broken in ["5\r\nhelloX\r\n", "5\nhello\r\n", "0x5\r\nhello\r\n"] {
            let mut scene = Scene::new().await;
            let sent = format!(
                "POST / HTTP/1.1\r\nhost: a\r\nx-show: 99\r\ntransfer-encoding: chunked\r\n\r\n{broken}{GET}"
            );
            scene.client.write_all(sent.as_bytes()).await.unwrap();
            let answer = read_to_end(&mut scene.client).await;
            scene.client.shutdown().await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
            assert!(matches!(
                scene.gate.shown()[..],
                [Err(BodyError::Malformed { .. })]
            ));
            assert_eq!(scene.gate.targets(), ["/"]);
            scene.ensure_nothing_sent().await;
        }
    });
}

#[test]
fn a_body_that_breaks_off_is_not_passed_on() {
    run(async {
        let mut scene = Scene::new().await;
        let sent = "POST / HTTP/1.1\r\nhost: a\r\nx-show: 9\r\ncontent-length: 9\r\n\r\nhello";
        scene.client.write_all(sent.as_bytes()).await.unwrap();
        scene.client.shutdown().await.unwrap();
        let _ = scene.client.read_to_end(&mut Vec::new()).await;
        assert_eq!(scene.gate.shown(), [Err(BodyError::CutShort)]);
        scene.ensure_nothing_sent().await;
    });
}

#[test]
fn a_large_body_arrives_intact_after_the_part_that_the_gate_read() {
    run(async {
        let mut scene = Scene::new().await;
        let body: Vec<u8> = (0..LARGE).map(|place| (place % 251) as u8).collect();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: a\r\nx-show: 8192\r\ncontent-length: {LARGE}\r\n\r\n"
        );
        let got = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LARGE}\r\n\r\n");
        scene.client.write_all(head.as_bytes()).await.unwrap();
        let (client, application) = (&mut scene.client, &mut scene.application);
        let receiving = async {
            expect(application, &got).await;
            let mut received = vec![0; LARGE];
            application.read_exact(&mut received).await.unwrap();
            received
        };
        let (sent, received) = tokio::join!(client.write_all(&body), receiving);
        sent.unwrap();
        assert!(received == body);
        scene.answer(OK, OK).await;
        assert_eq!(scene.meter.sent(), LARGE as u64);
    });
}
