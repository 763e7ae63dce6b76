use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::ca::{TestCa, ready};
use super::{HOUR, eventually, identity};
use crate::identities::Identities;
use crate::status::CertificateState;
use crate::status::{CertificateSummary, NodeCertificateState};

/// Long enough that whole seconds and a busy machine do not matter, and short enough to wait for.
const SHORT: Duration = Duration::from_secs(8);

fn summary(identities: &Identities) -> CertificateSummary {
    CertificateSummary::of(&identities.list())
}

#[tokio::test]
async fn all_who_hold_an_identity_share_one_certificate() {
    let ca = TestCa::make();
    let identities = ca.identities(HOUR);
    let web = identity("web");
    let held: Vec<_> = (0..20).map(|_| identities.hold(&web)).collect();
    for one in &held {
        ready(one).await;
        assert_eq!(*one.identity(), web);
    }
    assert_eq!(ca.issued.load(Ordering::SeqCst), 1);
    ready(&identities.hold(&identity("db"))).await;
    assert_eq!(ca.issued.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_slow_answer_for_one_identity_does_not_delay_others() {
    let ca = TestCa::make();
    ca.stuck.lock().unwrap().insert("slow".to_owned());
    let identities = ca.identities(HOUR);
    let slow = identities.hold(&identity("slow"));
    eventually("a question", || ca.asked.load(Ordering::SeqCst) == 1).await;
    let others: Vec<_> = (0..30)
        .map(|number| identities.hold(&identity(&format!("web-{number}"))))
        .collect();
    for other in &others {
        ready(other).await;
    }
    let error = slow.ready().unwrap_err().to_string();
    assert!(error.contains("it is being requested"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_answered_is_abandoned() {
    let ca = TestCa::make();
    ca.stuck.lock().unwrap().insert("web".to_owned());
    let identities = ca.identities(HOUR);
    let held = identities.hold(&identity("web"));
    tokio::time::sleep(Duration::from_secs(16)).await;
    let error = held.ready().unwrap_err().to_string();
    assert!(error.contains("did not answer within 15 s"), "{error}");
    ca.stuck.lock().unwrap().clear();
    tokio::time::sleep(Duration::from_secs(16)).await;
    held.ready().unwrap();
}

#[tokio::test]
async fn a_certificate_is_renewed_at_about_half_its_life() {
    let identities = TestCa::make().identities(HOUR);
    let held = identities.hold(&identity("web"));
    ready(&held).await;
    let first = identities.list().remove(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let left = first.renews_at.unwrap() - now.unwrap().as_secs();
    assert!((1600..=2000).contains(&left), "{left}");
    assert_eq!(first.state, CertificateState::Valid);
}

#[tokio::test]
async fn a_renewal_replaces_the_configurations_and_the_epoch() {
    let identities = TestCa::make().identities(SHORT);
    let held = identities.hold(&identity("web"));
    ready(&held).await;
    let first = identities.list().remove(0);
    let old = held.client().unwrap().epoch();
    eventually("a renewal", || held.client().unwrap().epoch() > old).await;
    let second = identities.list().remove(0);
    assert_ne!(first.serial, second.serial);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    assert!(now.unwrap().as_secs() < first.not_after.unwrap());
}

#[tokio::test]
async fn a_certificate_whose_renewal_fails_is_used_until_it_expires() {
    let ca = TestCa::make();
    let identities = ca.identities(SHORT);
    let held = identities.hold(&identity("web"));
    ready(&held).await;
    assert_eq!(summary(&identities).state, NodeCertificateState::Good);
    ca.fails.store(true, Ordering::SeqCst);
    eventually("a failure", || summary(&identities).failing == 1).await;
    held.client().unwrap();
    let degraded = summary(&identities);
    assert_eq!(degraded.state, NodeCertificateState::Degraded);
    let info = identities.list().remove(0);
    assert_eq!(degraded.degraded_until, info.not_after);
    let faults = identities.faults(&identities.list());
    assert!(
        faults[0].message.contains("It is valid until"),
        "{faults:?}"
    );
    assert!(faults[0].message.contains("out of ink"), "{faults:?}");
    eventually("the end of the old one", || held.client().is_err()).await;
    assert_eq!(summary(&identities).state, NodeCertificateState::Expired);
    for error in [held.server().unwrap_err(), held.client().unwrap_err()] {
        let error = error.to_string();
        assert!(error.contains("it expired at"), "{error}");
        assert!(error.contains("out of ink"), "{error}");
    }
    let mut arrivals = identities.arrivals();
    ca.fails.store(false, Ordering::SeqCst);
    eventually("a new certificate", || held.server().is_ok()).await;
    eventually("good", || {
        summary(&identities).state == NodeCertificateState::Good
    })
    .await;
    assert!(arrivals.has_changed().unwrap(), "waiters are notified");
    arrivals.mark_unchanged();
}

#[tokio::test]
async fn a_first_request_that_fails_is_repeated() {
    let ca = TestCa::make();
    ca.fails.store(true, Ordering::SeqCst);
    let identities = ca.identities(HOUR);
    let held = identities.hold(&identity("web"));
    eventually("a failure", || {
        summary(&identities).state == NodeCertificateState::Degraded
    })
    .await;
    let error = held.ready().unwrap_err().to_string();
    assert!(error.contains("out of ink"), "{error}");
    assert_eq!(identities.list()[0].state, CertificateState::Missing);
    ca.fails.store(false, Ordering::SeqCst);
    ready(&held).await;
    assert_eq!(identities.faults(&identities.list()), []);
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_yet_is_refused() {
    let ca = TestCa::make();
    let identities = ca.identities(HOUR);
    ca.ahead.store(600, Ordering::SeqCst);
    let held = identities.hold(&identity("web"));
    eventually("a refusal", || identities.list()[0].error.is_some()).await;
    let error = held.ready().unwrap_err().to_string();
    assert!(error.contains("is not valid before"), "{error}");
    assert!(error.contains("check the clocks"), "{error}");
    ca.ahead.store(0, Ordering::SeqCst);
    ready(&held).await;
}

#[tokio::test(start_paused = true)]
async fn a_ca_that_is_down_gets_few_requests() {
    let ca = TestCa::make();
    ca.is_down.store(true, Ordering::SeqCst);
    let identities = ca.identities(HOUR);
    let held: Vec<_> = (0..1000)
        .map(|number| identities.hold(&identity(&format!("web-{number}"))))
        .collect();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(identities.is_ca_unavailable());
    let asked = ca.asked.load(Ordering::SeqCst);
    assert!((5..40).contains(&asked), "{asked}");
    ca.is_down.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert!(held.iter().all(|one| one.ready().is_ok()));
    assert_eq!(ca.issued.load(Ordering::SeqCst), 1000);
}

#[tokio::test]
async fn a_certificate_that_nobody_holds_is_not_renewed() {
    let ca = TestCa::make();
    let identities = ca.identities(SHORT);
    let held = identities.hold(&identity("web"));
    ready(&held).await;
    drop(held);
    assert_eq!(identities.list(), []);
    let other = identities.hold(&identity("db"));
    ready(&other).await;
    eventually("two renewals of the other", || {
        other.client().is_ok_and(|tls| tls.epoch() > 2)
    })
    .await;
    let others = usize::try_from(other.client().unwrap().epoch()).unwrap();
    assert_eq!(ca.issued.load(Ordering::SeqCst), 1 + others);
}
