use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::{HOUR, Root, identity, trust};
use crate::issued::{IssueRequest, check_issued};
use crate::managed::ManagedCertificate;
use crate::roots::MeshTrust;
use crate::schedule::IssuePriority;

/// A certificate that was issued now, for an hour.
fn held() -> (ManagedCertificate, SystemTime) {
    let (root, web) = (Root::make(), identity("web"));
    let (_, anchors) = watch::channel(Arc::new(root.anchors()));
    let trust = MeshTrust::new(anchors, trust(&[]));
    let now = SystemTime::now();
    let question = IssueRequest {
        identity: &web,
        lifetime: HOUR,
        now,
    };
    let issued = root.sign(
        &[&web.spiffe_id()],
        [now - Duration::from_secs(120), now + HOUR],
    );
    let verification = trust.verification().unwrap();
    let checked = check_issued(issued, &question, &verification.verifier).unwrap();
    let held = ManagedCertificate::new(web);
    held.install(checked, &trust, now).unwrap();
    (held, now)
}

#[test]
fn small_changes_of_the_clock_do_not_renew_a_certificate() {
    let (held, now) = held();
    let due = held.due(now);
    assert!(
        (HOUR.mul_f64(0.44)..HOUR.mul_f64(0.56)).contains(&due),
        "{due:?}"
    );
    assert_eq!(held.priority(now + HOUR / 4), IssuePriority::Renewal);
    assert!(held.due(now + HOUR / 4) < due);
    held.valid(now - Duration::from_secs(60)).unwrap();
}

#[test]
fn a_clock_that_jumps_past_renewal_has_the_certificate_replaced() {
    let (held, now) = held();
    let past_renewal = now + HOUR.mul_f64(0.6);
    assert_eq!(held.due(past_renewal), Duration::ZERO);
    assert_eq!(held.priority(past_renewal), IssuePriority::Renewal);
    let past_its_end = now + 400 * 24 * HOUR;
    assert_eq!(held.due(past_its_end), Duration::ZERO);
    assert_eq!(held.priority(past_its_end), IssuePriority::Awaited);
    let error = held.valid(past_its_end).unwrap_err().to_string();
    assert!(error.contains("it expired at"), "{error}");
}

#[test]
fn a_clock_that_jumps_before_its_start_has_the_certificate_replaced() {
    let (held, now) = held();
    let before = now - 400 * 24 * HOUR;
    assert_eq!(held.due(before), Duration::ZERO);
    assert_eq!(held.priority(before), IssuePriority::Awaited);
    let error = held.valid(before).unwrap_err().to_string();
    assert!(error.contains("this node's clock says"), "{error}");
    // The clock went back, but the certificate is still valid: it is used, and renewed later.
    held.valid(now - Duration::from_secs(100)).unwrap();
}
