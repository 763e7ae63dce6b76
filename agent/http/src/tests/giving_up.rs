//! Clients that end their side, or break off, while the application works on the response.

use super::*;

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const SENT: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn an_application_sees_that_the_client_has_ended_its_side_and_may_respond() {
    run(async {
        let mut scene = Scene::new().await;
        scene.pass(GET, SENT).await;
        scene.answer(OK, OK).await;
        scene.pass(GET, SENT).await;
        scene.client.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut scene.application).await, "");
        scene.answer(OK, OK).await;
        assert_eq!(read_to_end(&mut scene.client).await, "");
        assert_eq!(scene.gate.outcomes(), [RequestOutcome::Finished; 2]);
    });
}

#[test]
fn a_client_that_has_closed_ends_the_exchange_when_something_is_sent_to_it() {
    run(async {
        let mut scene = Scene::new().await;
        scene.pass(GET, SENT).await;
        drop(scene.client);
        assert_eq!(read_to_end(&mut scene.application).await, "");
        let head = "HTTP/1.1 200 OK\r\n\r\n";
        scene.application.write_all(head.as_bytes()).await.unwrap();
        while scene.application.write_all(&[0; 1024]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        scene.serving.await.unwrap();
        assert_eq!(scene.gate.outcomes(), [RequestOutcome::ClientFailed]);
    });
}

#[test]
fn the_end_is_told_after_the_last_request_of_a_pipeline() {
    run(async {
        let mut scene = Scene::new().await;
        let pipeline = format!("{GET}\r\n{GET}");
        scene.client.write_all(pipeline.as_bytes()).await.unwrap();
        scene.client.shutdown().await.unwrap();
        expect(&mut scene.application, SENT).await;
        let early = timeout(Duration::from_millis(200), scene.application.read_u8());
        assert!(early.await.is_err(), "the end is told too early");
        scene.answer(OK, OK).await;
        expect(&mut scene.application, SENT).await;
        assert_eq!(read_to_end(&mut scene.application).await, "");
        scene.answer(OK, OK).await;
        assert_eq!(read_to_end(&mut scene.client).await, "");
    });
}

#[test]
fn bytes_that_do_not_become_a_request_do_not_hide_the_end() {
    run(async {
        for rest in ["\r\n", "GET / HTTP/1.1\r\nHost", "GET / HTTP/9\r\n\r\n"] {
            let mut scene = Scene::new().await;
            scene.pass(&format!("{GET}{rest}"), SENT).await;
            scene.client.shutdown().await.unwrap();
            assert_eq!(read_to_end(&mut scene.application).await, "");
            scene.answer(OK, OK).await;
        }
    });
}

#[test]
fn an_application_that_stops_because_of_the_clients_end_has_not_failed() {
    run(async {
        let mut scene = Scene::new().await;
        scene.pass(GET, SENT).await;
        scene.client.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut scene.application).await, "");
        drop(scene.application);
        assert_eq!(read_to_end(&mut scene.client).await, "");
        assert_eq!(scene.gate.outcomes(), [RequestOutcome::ClientFailed]);
    });
}
