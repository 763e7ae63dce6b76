use std::fs;
use std::sync::Arc;

use super::server::asked_for;
use super::{NAME, Scene, good};
use crate::tests::Root;

#[tokio::test]
async fn a_verified_ca_gets_the_token_and_the_request() {
    let scene = Scene::start(good(&Arc::new(Root::make()))).await;
    scene.ask().await.unwrap();
    let (headers, message) = scene.server.requests().remove(0);
    assert_eq!(headers["authorization"], "Bearer first");
    assert_eq!(headers["clusterid"], "Kubernetes");
    assert_eq!(asked_for(&message), "spiffe://cluster.local/ns/prod/sa/web");
    assert_eq!(message.validity_duration, 3600);
}

#[tokio::test]
async fn no_token_is_sent_to_a_ca_of_another_root() {
    let scene = Scene::start(good(&Arc::new(Root::make()))).await;
    fs::write(scene.file("root.pem"), Root::make().pem).unwrap();
    let failure = scene.refused().await;
    assert!(failure.is_of_ca());
    let failure = failure.to_string();
    for word in ["--ca-root", "root.pem", NAME, "no token was sent"] {
        assert!(failure.contains(word), "{word}: {failure}");
    }
    assert!(scene.server.connections() > 0);
    assert_eq!(scene.server.requests().len(), 0);
}

#[tokio::test]
async fn no_token_is_sent_to_a_ca_of_another_name() {
    let scene = Scene::named("istiod.elsewhere.svc", good(&Arc::new(Root::make()))).await;
    let failure = scene.refused().await.to_string();
    assert!(failure.contains(NAME), "{failure}");
    assert!(scene.server.connections() > 0);
    assert_eq!(scene.server.requests().len(), 0);
}

#[tokio::test]
async fn without_roots_no_ca_is_asked() {
    let scene = Scene::start(good(&Arc::new(Root::make()))).await;
    for text in ["", "no PEM"] {
        fs::write(scene.file("root.pem"), text).unwrap();
        let failure = scene.refused().await.to_string();
        assert!(failure.contains("--ca-root"), "{failure}");
    }
    fs::remove_file(scene.file("root.pem")).unwrap();
    scene.refused().await;
    assert_eq!(scene.server.connections(), 0);
}

#[tokio::test]
async fn a_change_of_the_root_file_replaces_an_open_connection() {
    let scene = Scene::start(good(&Arc::new(Root::make()))).await;
    scene.ask().await.unwrap();
    scene.ask().await.unwrap();
    assert_eq!(
        scene.server.connections(),
        1,
        "questions share a connection"
    );
    fs::write(scene.file("root.pem"), Root::make().pem).unwrap();
    scene.refused().await;
    assert_eq!(scene.server.requests().len(), 2);
    let both = format!("{}{}", Root::make().pem, scene.server_root.pem);
    fs::write(scene.file("root.pem"), both).unwrap();
    scene.ask().await.unwrap();
}

#[tokio::test]
async fn the_token_is_read_for_each_request_and_required() {
    let scene = Scene::start(good(&Arc::new(Root::make()))).await;
    scene.ask().await.unwrap();
    fs::write(scene.file("token"), "second").unwrap();
    scene.ask().await.unwrap();
    assert_eq!(scene.tokens(), ["Bearer first", "Bearer second"]);
    for text in ["", " \n", "a\nb"] {
        fs::write(scene.file("token"), text).unwrap();
        let failure = scene.refused().await.to_string();
        assert!(failure.contains("--ca-token"), "{failure}");
    }
    assert_eq!(scene.server.requests().len(), 2);
}

#[tokio::test]
async fn the_error_names_a_ca_that_cannot_be_reached() {
    let mut scene = Scene::start(good(&Arc::new(Root::make()))).await;
    // The kernel does not assign this port.
    let address = "127.0.0.1:1";
    scene.ca.config.address = format!("https://{address}").parse().unwrap();
    let failure = scene.refused().await;
    assert!(failure.is_of_ca());
    let failure = failure.to_string();
    assert!(
        failure.contains("--ca-address") && failure.contains(address),
        "{failure}"
    );
}
