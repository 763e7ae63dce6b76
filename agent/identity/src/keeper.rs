//! Has one identity's certificate issued and renewed, for as long as somebody holds it.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::answer::{CheckedCertificate, IssueRequest, check};
use super::held::ManagedCertificate;
use super::provider::{CertificateProvider, IssueFailure};
use super::schedule::{CaReachability, IssueSchedule, IssueSlot};
use super::trust::MeshTrust;
use ambit_backoff::Backoff;
use ambit_model::WorkloadIdentity;

/// The pause after a failed attempt.
const RETRY: Backoff =
    Backoff::doubling(Duration::from_millis(500), Duration::from_secs(60)).with_jitter(0.5, 1.0);

/// How often the clock is looked at: it can be set, and a machine can sleep, while a timer runs.
const CLOCK_LOOK: Duration = Duration::from_secs(5);

/// How long an authority may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// What all keepers share.
pub(super) struct Issuing {
    pub(super) provider: Arc<dyn CertificateProvider>,
    pub(super) trust: MeshTrust,
    pub(super) lifetime: Duration,
    pub(super) schedule: IssueSchedule,
    /// Counts identities that have come to have a valid certificate.
    pub(super) arrivals: watch::Sender<u64>,
}

/// Runs until nobody holds it.
pub(super) async fn keep(issuing: Arc<Issuing>, held: Weak<ManagedCertificate>) {
    let mut failures = 0_u32;
    let mut retry_at = Instant::now();
    loop {
        let Some(due) = look(&held) else { return };
        let pause = retry_at.saturating_duration_since(Instant::now());
        let wait = due.max(pause).min(CLOCK_LOOK);
        if !wait.is_zero() {
            doze(&held, wait).await;
            continue;
        }
        let Some(slot) = slot(&issuing, &held).await else {
            return;
        };
        let Some(held) = held.upgrade() else { return };
        match ask(&issuing, &held, slot).await {
            Ok(()) => failures = 0,
            Err(failure) => {
                failures = failures.saturating_add(1);
                let pause = RETRY.pause(failures);
                retry_at = Instant::now() + pause;
                let now = SystemTime::now();
                tracing::debug!(identity = %held.identity, %failure, ?pause, "no certificate came");
                held.failed(failure.to_string(), now + pause, now);
            }
        }
    }
}

/// How long until a certificate is due.
fn look(held: &Weak<ManagedCertificate>) -> Option<Duration> {
    let held = held.upgrade()?;
    let now = SystemTime::now();
    held.look(now);
    Some(held.due(now))
}

/// Waits for a while, or until there is reason not to.
async fn doze(held: &Weak<ManagedCertificate>, longest: Duration) {
    let Some(roused) = held.upgrade().map(|held| Arc::clone(&held.roused)) else {
        return;
    };
    tokio::select! {
        () = roused.notified() => {}
        () = sleep(longest) => {}
    }
}

/// Waits for its turn. `None` where nobody holds it any more.
async fn slot(issuing: &Issuing, held: &Weak<ManagedCertificate>) -> Option<IssueSlot> {
    loop {
        let priority = held.upgrade()?.priority(SystemTime::now());
        let mut turn = pin!(issuing.schedule.acquire(priority));
        loop {
            tokio::select! {
                slot = &mut turn => return Some(slot),
                () = sleep(CLOCK_LOOK) => {}
            }
            let held = held.upgrade()?;
            let now = SystemTime::now();
            held.look(now);
            // It may have expired in the queue.
            if held.priority(now) != priority {
                break;
            }
        }
    }
}

async fn ask(
    issuing: &Issuing,
    held: &ManagedCertificate,
    slot: IssueSlot,
) -> Result<(), IssueFailure> {
    let asked = issue(issuing, &held.identity).await;
    slot.finish(match &asked {
        Err(failure) if failure.is_of_authority() => CaReachability::Unavailable,
        Ok(_) | Err(_) => CaReachability::Answered,
    });
    let certificate = asked?;
    let now = SystemTime::now();
    let was_valid = held.valid(now).is_ok();
    held.install(certificate, &issuing.trust, now)?;
    if !was_valid {
        issuing.arrivals.send_modify(|count| *count += 1);
    }
    Ok(())
}

async fn issue(
    issuing: &Issuing,
    identity: &WorkloadIdentity,
) -> Result<CheckedCertificate, IssueFailure> {
    let asking = issuing.provider.issue(identity, issuing.lifetime);
    let issued = timeout(ANSWER_TIMEOUT, asking)
        .await
        .map_err(|_| IssueFailure::TimedOut(ANSWER_TIMEOUT))??;
    let question = IssueRequest {
        identity,
        lifetime: issuing.lifetime,
        now: SystemTime::now(),
    };
    let verification = issuing.trust.verification()?;
    Ok(check(issued, &question, &verification.verifier)?)
}
