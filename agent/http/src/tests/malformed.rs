//! Malformed requests and responses on the wire.

use super::*;

/// Ensures that the client gets this status and an orderly end, and the application no byte.
async fn ensure_answered(sent: &[u8], status: &str) {
    let mut scene = Scene::new().await;
    scene.client.write_all(sent).await.unwrap();
    scene.client.shutdown().await.unwrap();
    let answer = read_to_end(&mut scene.client).await;
    let begin = format!("HTTP/1.1 {status} ");
    assert!(
        answer.starts_with(&begin),
        "{:?}: {answer}",
        String::from_utf8_lossy(sent)
    );
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(scene.gate.targets().is_empty());
    scene.ensure_nothing_sent().await;
}

#[test]
fn requests_that_could_be_read_in_two_ways_are_answered_with_400() {
    run(async {
        for lines in [
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            "content-length: 5\r\ncontent-length: 5\r\n",
            "transfer-encoding: chunked, chunked\r\n",
            "transfer-encoding: \x0bchunked\r\n",
            "host: a.com\r\n",
            "X: a\r\n b\r\n",
            "X : a\r\n",
            "X: a\nY: b\r\n",
            "connection: x-forwarded-for\r\n",
        ] {
            let sent = format!("POST / HTTP/1.1\r\nhost: a.com\r\n{lines}\r\nhello");
            ensure_answered(sent.as_bytes(), "400").await;
        }
        for sent in [
            "get / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET /\0",
        ] {
            ensure_answered(sent.as_bytes(), "400").await;
        }
        ensure_answered(b"CONNECT a.com:80 HTTP/1.1\r\n\r\n", "405").await;
        let large = format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(61 << 10));
        ensure_answered(large.as_bytes(), "431").await;
    });
}

#[test]
fn bytes_after_a_malformed_request_are_not_read_as_a_request() {
    run(async {
        let sent = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n\
                     0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
        ensure_answered(sent, "400").await;
    });
}

#[test]
fn a_body_is_never_read_as_a_request() {
    run(async {
        let mut scene = Scene::new().await;
        let body = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
        let sent = format!(
            "POST /denied HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        scene.client.write_all(sent.as_bytes()).await.unwrap();
        scene
            .client
            .write_all(b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        expect(
            &mut scene.application,
            "GET /next HTTP/1.1\r\nhost: a\r\n\r\n",
        )
        .await;
        assert_eq!(scene.gate.targets(), ["/denied", "/next"]);
    });
}

#[test]
fn a_malformed_chunk_resets_the_application_and_is_answered_with_400() {
    run(async {
        for chunk in [
            "0x5\r\nhello",
            "5\r\nhelloX",
            "5\nhello",
            " 5\r\n",
            "-1\r\n",
        ] {
            let mut scene = Scene::new().await;
            let head =
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
            let sent =
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
            scene.pass(head, sent).await;
            scene.client.write_all(chunk.as_bytes()).await.unwrap();
            let answer = read_to_end(&mut scene.client).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{chunk:?}: {answer}");
            ensure_reset(&mut scene.application).await;
            assert_eq!(scene.gate.outcomes(), [RequestOutcome::ClientFailed]);
        }
    });
}

#[test]
fn a_body_that_is_cut_short_is_not_an_orderly_end_for_the_application() {
    run(async {
        let mut scene = Scene::new().await;
        let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc";
        let sent = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc";
        scene.pass(head, sent).await;
        scene.client.shutdown().await.unwrap();
        ensure_reset(&mut scene.application).await;
    });
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const SENT: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn malformed_responses_are_502_and_end_both_connections() {
    run(async {
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
            "HTTP/1.1 200 OK\r\n X: y\r\ncontent-length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\nX: y\n \nContent-Length: 5\n\nhello",
            "HTTP/1.1 200 OK\rContent-Length: 5\r\r\n\nhello",
            "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
            "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
            "hello\r\n\r\n",
        ] {
            let mut scene = Scene::new().await;
            scene.pass(GET, SENT).await;
            scene
                .application
                .write_all(answer.as_bytes())
                .await
                .unwrap();
            let got = read_to_end(&mut scene.client).await;
            assert!(got.starts_with("HTTP/1.1 502 "), "{answer:?}: {got}");
            ensure_reset(&mut scene.application).await;
            assert_eq!(scene.gate.outcomes(), [RequestOutcome::ApplicationFailed]);
        }
    });
}

#[test]
fn a_malformed_chunk_of_a_response_resets_both_sides() {
    run(async {
        let mut scene = Scene::new().await;
        scene.pass(GET, SENT).await;
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
        let got = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
        scene.answer(head, got).await;
        scene.application.write_all(b"0x1\r\n").await.unwrap();
        ensure_reset(&mut scene.client).await;
        ensure_reset(&mut scene.application).await;
    });
}

#[test]
fn bytes_after_a_response_are_not_read_as_the_next_response() {
    run(async {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let got = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        // Directly after the response.
        let mut scene = Scene::new().await;
        scene.pass(&GET.repeat(2), SENT).await;
        scene.answer(&answer.repeat(2), got).await;
        assert_eq!(read_to_end(&mut scene.client).await, "");
        assert_eq!(scene.gate.targets().len(), 1);
        // Later, while no request is under way.
        let mut scene = Scene::new().await;
        scene.pass(GET, SENT).await;
        scene.answer(answer, got).await;
        scene
            .application
            .write_all(answer.as_bytes())
            .await
            .unwrap();
        assert_eq!(read_to_end(&mut scene.client).await, "");
        assert_eq!(scene.gate.targets().len(), 1);
    });
}
