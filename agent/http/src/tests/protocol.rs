//! Which connections speak HTTP, and how the others are handed back.

use super::*;

async fn ensure_not_http(sent: &[u8]) {
    let mut scene = Scene::new().await;
    scene.client.write_all(sent).await.unwrap();
    let ServeOutcome::NotHttp(NotHttp {
        mut downstream,
        read,
        application,
    }) = scene.serving.await.unwrap()
    else {
        panic!("{sent:?} was taken for HTTP");
    };
    assert_eq!(&read[..], sent);
    drop(application);
    downstream.write_all(b"judged").await.unwrap();
    expect(&mut scene.client, "judged").await;
    ensure_reset(&mut scene.application).await;
}

#[test]
fn a_connection_without_http_is_handed_back_with_its_bytes() {
    run(async {
        for sent in [
            &b"\x16\x03\x01"[..],
            b"SSH-2.0-x\r\n",
            b"*1\r\n$4\r\nPING\r\n",
        ] {
            ensure_not_http(sent).await;
        }
    });
}

#[test]
fn an_end_within_the_first_word_is_not_http() {
    run(async {
        let mut scene = Scene::new().await;
        scene.client.write_all(b"PRI").await.unwrap();
        scene.client.shutdown().await.unwrap();
        let served = scene.serving.await.unwrap();
        assert!(matches!(served, ServeOutcome::NotHttp(handed) if handed.read == "PRI"));
    });
}

#[test]
fn an_application_that_speaks_first_is_not_an_http_server() {
    run(async {
        let mut scene = Scene::new().await;
        scene.application.write_all(b"220 mail\r\n").await.unwrap();
        let served = scene.serving.await.unwrap();
        assert!(matches!(served, ServeOutcome::NotHttp(handed) if handed.read.is_empty()));
    });
}

#[test]
fn an_application_that_ends_first_ends_the_client() {
    run(async {
        let mut scene = Scene::new().await;
        scene.application.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut scene.client).await, "");
        drop(scene.client);
        assert_eq!(read_to_end(&mut scene.application).await, "");
        assert!(matches!(scene.serving.await.unwrap(), ServeOutcome::Ended));
    });
}

#[test]
fn a_client_that_sends_nothing_ends_the_application_in_order() {
    run(async {
        let mut scene = Scene::new().await;
        scene.client.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut scene.application).await, "");
        assert!(matches!(scene.serving.await.unwrap(), ServeOutcome::Ended));
    });
}

#[test]
fn a_stalled_first_line_times_out() {
    run(async {
        let limits = HttpLimits {
            head_timeout: Duration::from_millis(1),
            ..HttpLimits::default()
        };
        let mut scene = Scene::with(limits).await;
        scene.client.write_all(b"GE").await.unwrap();
        ensure_reset(&mut scene.client).await;
        let mut scene = Scene::with(limits).await;
        scene.client.write_all(b"GET / HT").await.unwrap();
        let answer = read_to_end(&mut scene.client).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        drop(scene.client);
        scene.serving.await.unwrap();
    });
}
