//! Connections that leave HTTP.

use super::*;

pub(super) const OFFER: &str =
    "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
pub(super) const OFFERED: &str =
    "GET /chat HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
pub(super) const AGREED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";

async fn upgraded() -> Scene {
    let mut scene = Scene::new().await;
    scene.pass(OFFER, OFFERED).await;
    scene.answer(AGREED, AGREED).await;
    scene
}

#[test]
fn an_upgraded_connection_is_relayed_both_ways_with_half_closes() {
    run(async {
        let mut scene = upgraded().await;
        scene.pass("\x01ping", "\x01ping").await;
        scene.answer("\x02pong", "\x02pong").await;
        scene.client.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut scene.application).await, "");
        scene.answer("bye", "bye").await;
        scene.application.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut scene.client).await, "");
        scene.serving.await.unwrap();
        assert_eq!(scene.gate.outcomes(), [RequestOutcome::Finished]);
        let exchange = scene.gate.0.finished.borrow()[0];
        assert_eq!((exchange.sent, exchange.received), (5, 8));
    });
}

#[test]
fn an_upgraded_connection_ends_with_its_permit() {
    run(async {
        let mut scene = upgraded().await;
        scene.pass("ping", "ping").await;
        scene.gate.revoke();
        ensure_reset(&mut scene.client).await;
        ensure_reset(&mut scene.application).await;
        assert_eq!(scene.gate.outcomes(), [RequestOutcome::Revoked]);
    });
}

#[test]
fn what_follows_the_heads_of_an_upgrade_is_carried_first() {
    run(async {
        let mut scene = Scene::new().await;
        scene.pass(&format!("{OFFER}early"), OFFERED).await;
        let agreed = format!("{AGREED}hello");
        scene.answer(&agreed, &agreed).await;
        expect(&mut scene.application, "early").await;
        scene.pass("ping", "ping").await;
        scene.answer("pong", "pong").await;
        scene.client.shutdown().await.unwrap();
        scene.application.shutdown().await.unwrap();
        scene.serving.await.unwrap();
        let exchange = scene.gate.0.finished.borrow()[0];
        assert_eq!((exchange.sent, exchange.received), (9, 9));
        assert_eq!((scene.meter.sent(), scene.meter.received()), (9, 9));
    });
}

/// As with a browser's tab that is gone: a peer that only keeps its connection open does not keep the other's.
#[test]
fn an_upgraded_connection_ends_when_one_side_has_closed() {
    run(async {
        for leaving in [Party::Client, Party::Server] {
            let scene = upgraded().await;
            let (mut leaver, mut other) = match leaving {
                Party::Client => (scene.client, scene.application),
                Party::Server => (scene.application, scene.client),
            };
            leaver.write_all(b"bye").await.unwrap();
            leaver.shutdown().await.unwrap();
            expect(&mut other, "bye").await;
            assert_eq!(
                other.read_u8().await.unwrap_err().kind(),
                ErrorKind::UnexpectedEof
            );
            scene.gate.0.closed.set(Some(leaving));
            scene.serving.await.unwrap();
            assert_eq!(scene.gate.outcomes(), [RequestOutcome::Finished]);
        }
    });
}

#[test]
fn bytes_sent_in_expectation_of_an_upgrade_are_judged_if_there_is_none() {
    run(async {
        let mut scene = Scene::new().await;
        let hopeful = format!("{OFFER}GET /denied HTTP/1.1\r\nhost: a\r\n\r\n");
        scene.pass(&hopeful, OFFERED).await;
        let plain = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        scene.answer(plain, plain).await;
        expect(&mut scene.client, "HTTP/1.1 403 Forbidden\r\n").await;
        assert_eq!(scene.gate.targets(), ["/chat", "/denied"]);
        scene.client.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut scene.application).await, "");
    });
}

#[test]
fn http_2_cannot_be_upgraded_to() {
    run(async {
        let mut scene = Scene::new().await;
        let offer = "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n";
        scene.pass(offer, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let agreed =
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: h2c\r\n\r\n";
        scene
            .application
            .write_all(agreed.as_bytes())
            .await
            .unwrap();
        let answer = read_to_end(&mut scene.client).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    });
}
