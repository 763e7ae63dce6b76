use std::fs;
use std::sync::Arc;

use super::server::Reply;
use super::{Scene, config, good};
use crate::istio_ca::{IstioCa, RequestNumbers};
use crate::provider::CertificateProvider;
use crate::roots::TrustAnchors;
use crate::tests::{Root, eventually, trust};

#[tokio::test]
async fn the_roots_are_those_of_the_newest_answer() {
    let (old, new) = (Arc::new(Root::make()), Arc::new(Root::make()));
    let scene = Scene::start(good(&old)).await;
    let anchors = scene.ca.anchors();
    assert!(anchors.borrow().is_empty());
    scene.ask().await.unwrap();
    assert_eq!(**anchors.borrow(), old.anchors());
    // A root is added: the last element contains the whole bundle.
    scene.server.reply(Reply::Certificate {
        signer: Arc::clone(&old),
        roots: format!("{}{}", new.pem, old.pem),
    });
    scene.ask().await.unwrap();
    let both = [&old, &new].map(|root| root.certificate.clone());
    assert_eq!(**anchors.borrow(), TrustAnchors::new(both));
    scene.server.reply(good(&new));
    scene.ask().await.unwrap();
    assert_eq!(**anchors.borrow(), new.anchors());
}

#[test]
fn an_answer_that_a_newer_one_overtook_is_ignored() {
    let mut questions = RequestNumbers::default();
    assert!(questions.note(2));
    assert!(!questions.note(1));
    assert!(questions.note(3));
}

#[tokio::test]
async fn a_file_of_roots_overrides_those_of_answers() {
    let (first, second) = (Arc::new(Root::make()), Root::make());
    let mut scene = Scene::start(good(&Arc::new(Root::make()))).await;
    let path = scene.file("trust.pem");
    let mut settings = config(&scene.server, &scene.files);
    settings.trust_roots = Some(path.clone());
    assert!(
        IstioCa::new(settings.clone(), trust(&[])).is_err(),
        "there is no file"
    );
    fs::write(&path, &first.pem).unwrap();
    scene.ca = IstioCa::new(settings, trust(&[])).unwrap();
    let anchors = scene.ca.anchors();
    scene.ask().await.unwrap();
    assert_eq!(
        **anchors.borrow(),
        first.anchors(),
        "not those of the answer"
    );
    fs::write(&path, format!("{}{}", first.pem, second.pem)).unwrap();
    eventually("another root", || {
        anchors.borrow().certificates().len() == 2
    })
    .await;
    fs::write(&path, &second.pem).unwrap();
    eventually("a root less", || **anchors.borrow() == second.anchors()).await;
    fs::write(&path, "no PEM").unwrap();
    eventually("a problem", || scene.ca.problem().is_some()).await;
    let problem = scene.ca.problem().unwrap();
    assert!(
        problem.contains("trust.pem") && problem.contains("in force"),
        "{problem}"
    );
    assert_eq!(**anchors.borrow(), second.anchors());
    fs::write(&path, &second.pem).unwrap();
    eventually("no problem", || scene.ca.problem().is_none()).await;
}
