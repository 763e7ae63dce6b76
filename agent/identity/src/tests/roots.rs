use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::duplex;

use super::ca::{TestCa, ready};
use super::{HOUR, Root, eventually, identity};
use crate::identities::{Identities, WorkloadCertificates};
use crate::tls::{PeerConnectError, VerifiedPeer};
use ambit_model::WorkloadIdentity;

const ANYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Two workloads with valid certificates.
async fn web_and_db(identities: &Identities) -> (WorkloadCertificates, WorkloadCertificates) {
    let (web, db) = (
        identities.hold(&identity("web")),
        identities.hold(&identity("db")),
    );
    ready(&web).await;
    ready(&db).await;
    (web, db)
}

/// Performs a tunnel's handshake with a workload that must be `expected`.
async fn tunnel(
    from: &WorkloadCertificates,
    to: &WorkloadCertificates,
    expected: &WorkloadIdentity,
) -> Result<VerifiedPeer, PeerConnectError> {
    let (near, far) = duplex(64 * 1024);
    let (client, server) = (from.client().unwrap(), to.server().unwrap());
    let accept = async {
        let (_, peer) = server.accept(far).await?;
        Ok(peer)
    };
    let connect = async {
        client.connect(ANYWHERE, expected, near).await?;
        Ok(())
    };
    let (accepted, connected): (Result<_, PeerConnectError>, Result<(), PeerConnectError>) =
        tokio::join!(accept, connect);
    connected?;
    accepted
}

#[tokio::test]
async fn a_connection_to_another_workload_than_expected_is_refused() {
    let identities = TestCa::make().identities(HOUR);
    let (web, db) = web_and_db(&identities).await;
    let peer = tunnel(&web, &db, db.identity()).await.unwrap();
    assert_eq!(peer.identity(), web.identity());
    let error = tunnel(&web, &db, web.identity()).await.unwrap_err();
    assert!(
        matches!(error, PeerConnectError::WrongIdentity { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn roots_change_without_a_failed_handshake() {
    let ca = TestCa::make();
    let identities = ca.identities(Duration::from_secs(8));
    let (web, db) = web_and_db(&identities).await;
    let met = Arc::new(AtomicUsize::new(0));
    let meeting = tokio::spawn({
        let (web, db, met) = (web.clone(), db.clone(), Arc::clone(&met));
        async move {
            loop {
                tunnel(&web, &db, db.identity()).await.expect("a tunnel");
                met.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let some_more = async || {
        let so_far = met.load(Ordering::SeqCst);
        eventually("handshakes", || met.load(Ordering::SeqCst) > so_far + 5).await;
    };
    some_more().await;
    let (old, new) = (ca.root(), Arc::new(Root::make()));
    ca.publish(&[&old, &new]);
    some_more().await;
    ca.sign_with(Arc::clone(&new));
    let first = serials(&identities);
    eventually("renewals", || all_differ(&first, &serials(&identities))).await;
    ca.publish(&[&new]);
    some_more().await;
    assert!(!meeting.is_finished());
    meeting.abort();
}

#[tokio::test]
async fn only_certificates_of_a_removed_root_are_replaced() {
    let ca = TestCa::make();
    let identities = ca.identities(HOUR);
    let (web, db) = web_and_db(&identities).await;
    let (old, new) = (ca.root(), Arc::new(Root::make()));
    let (first, epoch) = (serials(&identities), web.client().unwrap().epoch());
    ca.publish(&[&old, &new]);
    eventually("the new roots", || web.client().unwrap().epoch() > epoch).await;
    assert_eq!(serials(&identities), first);
    ca.sign_with(Arc::clone(&new));
    ca.publish(&[&new]);
    eventually("others", || all_differ(&first, &serials(&identities))).await;
    tunnel(&web, &db, db.identity()).await.unwrap();
}

fn serials(identities: &Identities) -> Vec<Option<String>> {
    let list = identities.list();
    list.into_iter().map(|one| one.serial).collect()
}

fn all_differ<T: PartialEq>(these: &[T], those: &[T]) -> bool {
    these.iter().zip(those).all(|(one, other)| one != other)
}

#[tokio::test]
async fn a_new_root_starts_a_new_epoch_for_tunnels() {
    let ca = TestCa::make();
    let identities = ca.identities(HOUR);
    let web = identities.hold(&identity("web"));
    ready(&web).await;
    let before = web.client().unwrap().epoch();
    ca.publish(&[&ca.root(), &Root::make()]);
    eventually("another epoch", || web.client().unwrap().epoch() > before).await;
}

#[tokio::test]
async fn a_peer_of_a_removed_root_is_no_longer_accepted() {
    let ca = TestCa::make();
    let identities = ca.identities(HOUR);
    let (web, db) = web_and_db(&identities).await;
    let peer = tunnel(&web, &db, db.identity()).await.unwrap();
    db.ensure_accepted(&peer).unwrap();
    let epoch = || db.client().map(|tls| tls.epoch()).unwrap_or_default();
    let (old, new) = (ca.root(), Arc::new(Root::make()));
    let before = epoch();
    ca.publish(&[&old, &new]);
    eventually("the new roots", || epoch() > before).await;
    db.ensure_accepted(&peer).unwrap();
    ca.sign_with(Arc::clone(&new));
    ca.publish(&[&new]);
    eventually("a refusal", || db.ensure_accepted(&peer).is_err()).await;
    let error = db.ensure_accepted(&peer).unwrap_err().to_string();
    assert!(error.contains("the mesh's new roots"), "{error}");
}

#[tokio::test]
async fn a_peer_whose_certificate_has_expired_is_no_longer_accepted() {
    let ca = TestCa::make();
    let identities = ca.identities(Duration::from_secs(6));
    let (web, db) = web_and_db(&identities).await;
    let peer = tunnel(&web, &db, db.identity()).await.unwrap();
    db.ensure_accepted(&peer).unwrap();
    eventually("its end", || db.ensure_accepted(&peer).is_err()).await;
    let error = db.ensure_accepted(&peer).unwrap_err().to_string();
    assert!(error.contains("it expired at"), "{error}");
    eventually("renewals", || db.ready().is_ok() && web.ready().is_ok()).await;
    tunnel(&web, &db, db.identity()).await.unwrap();
}

#[tokio::test]
async fn unusable_roots_leave_the_old_ones_in_force() {
    let ca = TestCa::make();
    let identities = ca.identities(HOUR);
    let web = identities.hold(&identity("web"));
    ready(&web).await;
    ca.publish(&[]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    tunnel(&web, &web, web.identity()).await.unwrap();
}
