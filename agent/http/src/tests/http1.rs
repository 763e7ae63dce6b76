//! HTTP/1 on the wire, byte by byte.

use super::*;

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const SENT: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const DENIED: &str = "HTTP/1.1 403 Forbidden\r\ncontent-length: 19\r\n\r\nRBAC: access denied";
const DENIED_LAST: &str =
    "HTTP/1.1 403 Forbidden\r\ncontent-length: 19\r\nconnection: close\r\n\r\nRBAC: access denied";

#[test]
fn only_permitted_requests_reach_the_application() {
    run(async {
        let mut scene = Scene::new().await;
        let denied = "GET /denied HTTP/1.1\r\nhost: a\r\n\r\n";
        scene.client.write_all(denied.as_bytes()).await.unwrap();
        expect(&mut scene.client, DENIED).await;
        scene.pass(GET, SENT).await;
        scene.answer(OK, OK).await;
        scene.client.write_all(denied.as_bytes()).await.unwrap();
        expect(&mut scene.client, DENIED).await;
        scene.client.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut scene.application).await, "");
        assert_eq!(scene.gate.outcomes(), [RequestOutcome::Finished]);
        let exchange = scene.gate.0.finished.borrow()[0];
        assert_eq!(
            (exchange.status, exchange.received),
            (Some(StatusCode::OK), 2)
        );
        assert_eq!((scene.meter.sent(), scene.meter.received()), (0, 2));
    });
}

#[test]
fn the_head_as_the_gate_changed_it_is_sent() {
    run(async {
        let mut scene = Scene::new().await;
        let sent = "GET /to-rewrite HTTP/1.1\r\nhost: a\r\nx-untrusted: 1\r\nx-kept: 2\r\n\r\n";
        let got = "GET /rewritten HTTP/1.1\r\nhost: a\r\nx-kept: 2\r\n\r\n";
        scene.pass(sent, got).await;
    });
}

#[test]
fn policy_sees_what_the_application_sees() {
    run(async {
        let mut scene = Scene::new().await;
        let sent = "GET http://A.com/x HTTP/1.1\r\nhost: a.com\r\nconnection: x-a, close\r\nx-a: 1\r\nx-b: 2\r\n\r\n";
        let got = "GET /x HTTP/1.1\r\nhost: A.com\r\nx-b: 2\r\nconnection: close\r\n\r\n";
        scene.pass(sent, got).await;
        let head = scene.gate.0.heads.borrow()[0].clone();
        assert_eq!(head.authority, "A.com");
        assert!(!head.headers.contains_key("x-a"));
    });
}

#[test]
fn pipelined_requests_are_judged_and_answered_in_their_order() {
    run(async {
        let mut scene = Scene::new().await;
        let three = "GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /denied HTTP/1.1\r\nhost: a\r\n\r\n\r\nGET /3 HTTP/1.1\r\nhost: a\r\n\r\n";
        scene
            .pass(three, "GET /1 HTTP/1.1\r\nhost: a\r\n\r\n")
            .await;
        scene.answer(OK, &format!("{OK}{DENIED}")).await;
        expect(&mut scene.application, "GET /3 HTTP/1.1\r\nhost: a\r\n\r\n").await;
        scene.answer(OK, OK).await;
        assert_eq!(scene.gate.targets(), ["/1", "/denied", "/3"]);
    });
}

#[test]
fn chunks_and_trailers_pass_both_ways() {
    run(async {
        let mut scene = Scene::new().await;
        let sent = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nx-sum: 1\r\nhost: b\r\nx-auth-user: c\r\nx_auth.user: c\r\n\r\n";
        let got = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n";
        scene.pass(sent, got).await;
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n";
        scene.answer(answer, answer).await;
        scene.pass(GET, SENT).await;
    });
}

#[test]
fn a_response_may_end_with_its_connection() {
    run(async {
        let mut scene = Scene::new().await;
        scene.pass(GET, SENT).await;
        let head = "HTTP/1.1 200 OK\r\n\r\nall";
        scene
            .answer(head, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall")
            .await;
        scene.application.write_all(b" of it").await.unwrap();
        scene.application.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut scene.client).await, " of it");
        // A reset is not such an end.
        let mut scene = Scene::new().await;
        scene.pass(GET, SENT).await;
        scene
            .answer(head, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall")
            .await;
        scene.application.set_zero_linger().unwrap();
        drop(scene.application);
        ensure_reset(&mut scene.client).await;
    });
}

#[test]
fn what_an_application_sent_before_it_broke_off_arrives() {
    run(async {
        let length = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart";
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n";
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n";
        for sent in [length, chunked, head] {
            for linger in [None, Some(Duration::ZERO)] {
                let mut scene = Scene::new().await;
                scene.pass(GET, SENT).await;
                scene.application.write_all(sent.as_bytes()).await.unwrap();
                let application = socket2::SockRef::from(&scene.application);
                application.set_linger(linger).unwrap();
                drop(scene.application);
                // The client sees the application's own end: both show that the response is not whole.
                expect(&mut scene.client, sent).await;
                match linger {
                    None => assert_eq!(read_to_end(&mut scene.client).await, ""),
                    Some(_) => ensure_reset(&mut scene.client).await,
                }
                drop(scene.client);
                scene.serving.await.unwrap();
                assert_eq!(scene.gate.outcomes(), [RequestOutcome::ApplicationFailed]);
            }
        }
        // To a client of HTTP/1.0, an orderly end would make it whole.
        let mut scene = Scene::new().await;
        let old = "GET / HTTP/1.0\r\nhost: a\r\n\r\n";
        let passed = "GET / HTTP/1.0\r\nhost: a\r\nconnection: close\r\n\r\n";
        scene.pass(old, passed).await;
        scene
            .answer(chunked, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\npart")
            .await;
        drop(scene.application);
        ensure_reset(&mut scene.client).await;
    });
}

#[test]
fn responses_without_bodies_are_passed_on_without() {
    run(async {
        let mut scene = Scene::new().await;
        let head = "HEAD / HTTP/1.1\r\nhost: a\r\n\r\n";
        scene.pass(head, "HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n";
        scene.answer(answer, answer).await;
        for status in ["204 No Content", "304 Not Modified"] {
            scene.pass(GET, SENT).await;
            let answer = format!("HTTP/1.1 {status}\r\n\r\n");
            scene.answer(&answer, &answer).await;
        }
        let denied = "HEAD /denied HTTP/1.1\r\nhost: a\r\n\r\n";
        scene.client.write_all(denied.as_bytes()).await.unwrap();
        expect(
            &mut scene.client,
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 19\r\n\r\n",
        )
        .await;
        scene.pass(GET, SENT).await;
    });
}

#[test]
fn http_1_0_is_spoken() {
    run(async {
        let mut scene = Scene::new().await;
        let sent = "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
        let got = "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
        scene.pass(sent, got).await;
        let answer = "HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok";
        let kept = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok";
        scene.answer(answer, kept).await;
        scene
            .pass(
                "GET / HTTP/1.0\r\n\r\n",
                "GET / HTTP/1.0\r\nconnection: close\r\n\r\n",
            )
            .await;
        // HTTP/1.0 has no chunks.
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        scene
            .answer(chunked, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok")
            .await;
        assert_eq!(read_to_end(&mut scene.client).await, "");
    });
}

#[test]
fn empty_lines_around_requests_are_dropped_up_to_a_bound() {
    run(async {
        let mut scene = Scene::new().await;
        for lines in [0, 1, 3, 16] {
            scene
                .pass(&format!("{}{GET}", "\r\n".repeat(lines)), SENT)
                .await;
            scene.answer(OK, OK).await;
        }
        let too_many = "\r\n".repeat(17);
        scene.client.write_all(too_many.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut scene.client).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        let mut first = Scene::new().await;
        first.pass(&format!("\r\n\r\n{GET}"), SENT).await;
        first.answer(OK, OK).await;
    });
}

#[test]
fn an_empty_host_is_passed_on() {
    run(async {
        let mut scene = Scene::new().await;
        let sent = "GET / HTTP/1.1\r\nhost:\r\n\r\n";
        scene.pass(sent, "GET / HTTP/1.1\r\nhost: \r\n\r\n").await;
        scene.answer(OK, OK).await;
        assert_eq!(scene.gate.0.heads.borrow()[0].authority, "");
    });
}

#[test]
fn old_forms_of_responses_are_written_anew() {
    run(async {
        let mut scene = Scene::new().await;
        let written = "HTTP/1.1 200 OK\r\nx: a b\r\ncontent-length: 2\r\n\r\nok";
        for answer in [
            "HTTP/1.1 200 OK\nx: a b\ncontent-length: 2\n\nok",
            "HTTP/1.1 200 OK\r\nx: a\r\n\tb\r\ncontent-length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nx: a b\r\nconnection: keep-alive; timeout=5\r\n\
             content-length: 2\r\n\r\nok",
        ] {
            scene.pass(GET, SENT).await;
            scene.answer(answer, written).await;
        }
        scene.pass(GET, SENT).await;
        let padded = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2  \r\nok\r\n0 \r\n\r\n";
        let written = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        scene.answer(padded, written).await;
        scene.pass(GET, SENT).await;
        let old = "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n\
                   2\r\nok\r\n0\r\n\r\n";
        let written = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
                       2\r\nok\r\n0\r\n\r\n";
        scene.answer(old, written).await;
        assert_eq!(read_to_end(&mut scene.client).await, "");
    });
}

#[test]
fn names_of_headers_and_trailers_keep_their_spelling_both_ways() {
    run(async {
        let mut scene = Scene::new().await;
        let request = "POST /x HTTP/1.1\r\nHost: a\r\nSOAPAction: b\r\nx-lower: c\r\n\
                       Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n";
        scene.pass(request, request).await;
        let response =
            "HTTP/1.1 200 OK\r\nETag: \"b\"\r\nSet-Cookie: c=d\r\nContent-Length: 2\r\n\r\nok";
        scene.answer(response, response).await;
        // What the gate removes or adds is not affected.
        let sent = "GET /to-rewrite HTTP/1.1\r\nHost: a\r\nX-Untrusted: b\r\nX-A: c\r\n\r\n";
        scene
            .pass(sent, "GET /rewritten HTTP/1.1\r\nHost: a\r\nX-A: c\r\n\r\n")
            .await;
        let head = "HTTP/1.1 200 OK\r\nConnection: Close\r\n\r\nall";
        let written = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall";
        scene.answer(head, written).await;
    });
}

#[test]
fn keep_alive_is_passed_on_while_the_connection_is_kept() {
    run(async {
        let mut scene = Scene::new().await;
        scene.pass(GET, SENT).await;
        let answer = "HTTP/1.1 200 OK\r\nconnection: Keep-Alive\r\nkeep-alive: timeout=5, max=9\r\n\
                      content-length: 2\r\n\r\nok";
        let kept = "HTTP/1.1 200 OK\r\nkeep-alive: timeout=5, max=9\r\ncontent-length: 2\r\n\
                    connection: keep-alive\r\n\r\nok";
        scene.answer(answer, kept).await;
        let sent = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nkeep-alive: 300\r\n\r\n";
        let got = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        scene.pass(sent, got).await;
        let last = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
        scene.answer(answer, last).await;
    });
}

const EXPECTS: &str =
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n";
const EXPECTS_SENT: &str =
    "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";

#[test]
fn the_application_may_send_100_continue_or_not() {
    run(async {
        let mut scene = Scene::new().await;
        scene.pass(EXPECTS, EXPECTS_SENT).await;
        let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
        scene.answer(go_on, go_on).await;
        scene.pass("hello", "hello").await;
        scene.answer(OK, OK).await;
        // A final response right away; the body may still follow.
        scene.pass(EXPECTS, EXPECTS_SENT).await;
        scene.answer(OK, OK).await;
        scene.pass("hello", "hello").await;
        scene.pass(GET, SENT).await;
    });
}

#[test]
fn a_rejected_request_that_expects_100_continue_is_answered_and_ends_the_connection() {
    run(async {
        let mut scene = Scene::new().await;
        let sent = EXPECTS.replace("/ ", "/denied ");
        scene.client.write_all(sent.as_bytes()).await.unwrap();
        assert_eq!(read_to_end(&mut scene.client).await, DENIED_LAST);
        drop(scene.client);
        assert_eq!(read_to_end(&mut scene.application).await, "");
    });
}

#[test]
fn a_rejected_request_with_a_long_body_is_answered_and_ends_the_connection() {
    run(async {
        for framing in ["Content-Length: 65537", "Transfer-Encoding: chunked"] {
            let mut scene = Scene::new().await;
            let sent = format!("POST /denied HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n");
            scene.client.write_all(sent.as_bytes()).await.unwrap();
            scene.client.write_all(&[b'x'; 9000]).await.unwrap();
            assert_eq!(read_to_end(&mut scene.client).await, DENIED_LAST);
        }
    });
}

#[test]
fn an_application_may_answer_before_it_has_all_of_the_request() {
    run(async {
        let mut scene = Scene::new().await;
        let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\nabc";
        let sent = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\nabc";
        scene.pass(head, sent).await;
        scene.answer(OK, OK).await;
        scene.pass("def", "def").await;
        scene.pass(GET, SENT).await;
        scene.answer(OK, OK).await;
        // It may also refuse the rest.
        scene.pass(head, sent).await;
        scene.application.write_all(OK.as_bytes()).await.unwrap();
        scene.application.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut scene.client).await, OK);
    });
}

#[test]
fn an_application_that_closes_between_requests_closes_the_client() {
    run(async {
        let mut scene = Scene::new().await;
        scene.pass(GET, SENT).await;
        scene.answer(OK, OK).await;
        scene.application.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut scene.client).await, "");
    });
}

#[test]
fn an_application_that_says_close_ends_the_connection() {
    run(async {
        let mut scene = Scene::new().await;
        scene.pass(&GET.repeat(2), SENT).await;
        let last = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
        scene.answer(last, last).await;
        assert_eq!(read_to_end(&mut scene.client).await, "");
        assert_eq!(scene.gate.targets().len(), 1);
    });
}

#[test]
fn an_application_that_never_answers_is_502() {
    run(async {
        let mut scene = Scene::new().await;
        scene.pass(GET, SENT).await;
        drop(scene.application);
        let answer = read_to_end(&mut scene.client).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    });
}

#[test]
fn a_client_that_has_ended_its_side_gets_the_response() {
    run(async {
        let mut scene = Scene::new().await;
        scene.client.write_all(GET.as_bytes()).await.unwrap();
        scene.client.shutdown().await.unwrap();
        expect(&mut scene.application, SENT).await;
        scene.answer(OK, OK).await;
        assert_eq!(read_to_end(&mut scene.client).await, "");
        assert_eq!(read_to_end(&mut scene.application).await, "");
    });
}

#[test]
fn a_client_that_aborts_resets_the_application() {
    run(async {
        let mut scene = Scene::new().await;
        scene.pass(GET, SENT).await;
        scene.client.set_zero_linger().unwrap();
        drop(scene.client);
        ensure_reset(&mut scene.application).await;
        assert_eq!(scene.gate.outcomes(), [RequestOutcome::ClientFailed]);
    });
}

#[test]
fn a_request_that_is_revoked_is_reset_on_both_sides() {
    run(async {
        let mut scene = Scene::new().await;
        scene.pass(GET, SENT).await;
        let begun = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc";
        scene.answer(begun, begun).await;
        scene.gate.revoke();
        ensure_reset(&mut scene.client).await;
        ensure_reset(&mut scene.application).await;
        assert_eq!(scene.gate.outcomes(), [RequestOutcome::Revoked]);
    });
}

#[test]
fn a_dropped_session_is_not_an_orderly_end_for_either_side() {
    run(async {
        let mut scene = Scene::new().await;
        scene.pass(GET, SENT).await;
        scene.serving.abort();
        ensure_reset(&mut scene.client).await;
        ensure_reset(&mut scene.application).await;
    });
}

#[test]
fn a_reader_that_does_not_read_stops_the_writer() {
    run(async {
        let mut scene = Scene::new().await;
        let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 999999999\r\n\r\n";
        scene.pass(head, "POST / HTTP/1.1\r\nhost: a\r\n").await;
        let bound = 24 << 20;
        let chunk = vec![0; 64 << 10];
        let mut accepted = 0;
        while let Ok(written) = timeout(Duration::from_secs(1), scene.client.write(&chunk)).await {
            accepted += written.unwrap();
            assert!(accepted < bound, "{accepted} bytes taken, and none read");
        }
    });
}
