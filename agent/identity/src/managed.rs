//! One identity's certificate, requested and renewed while somebody holds it.

use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::certificate::{Timeliness, rfc3339};
use crate::issued::{
    CheckedCertificate, IssueRequest, IssuedCertificateError, check_issued, ensure_chain,
};
use crate::provider::{CertificateProvider, IssueFailure};
use crate::roots::{MeshTrust, Verification};
use crate::schedule::{CaReachability, IssuePriority, IssueSchedule, IssueSlot};
use crate::status::CertificateState;
use crate::tls::TlsConfigs;
use ambit_backoff::Backoff;
use ambit_model::WorkloadIdentity;

/// When a certificate is renewed, as a fraction of its remaining life at issue. It varies at random, so
/// that certificates that were issued together are not renewed together.
const RENEWED_AT: std::ops::RangeInclusive<f64> = 0.45..=0.55;

/// The pause after a failed attempt.
const RETRY: Backoff =
    Backoff::doubling(Duration::from_millis(500), Duration::from_secs(60)).with_jitter(0.5, 1.0);

/// How often the clock is read again, since it can be set, and timers stop while a machine sleeps.
const CLOCK_LOOK: Duration = Duration::from_secs(5);

/// How long the CA may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// An identity's certificate, replaced by each renewal.
#[derive(Debug)]
pub(super) struct ManagedCertificate {
    pub(super) identity: WorkloadIdentity,
    current: ArcSwapOption<CurrentCertificate>,
    progress: Mutex<RenewalProgress>,
    /// Wakes the task that renews it.
    pub(super) roused: Arc<Notify>,
}

/// The certificate in use, with everything that is built from it.
#[derive(Debug)]
pub(super) struct CurrentCertificate {
    pub(super) certificate: Arc<CheckedCertificate>,
    pub(super) configs: TlsConfigs,
    pub(super) verification: Arc<Verification>,
    /// Increases with each certificate and each set of roots.
    pub(super) epoch: u64,
    pub(super) renews_at: SystemTime,
    /// The generation of the roots against which the chain was last verified; 0 before.
    pub(super) verified_by: AtomicU64,
}

/// How renewal is going. Whoever writes `current` holds this lock.
#[derive(Debug, Default)]
pub(super) struct RenewalProgress {
    /// Why the last attempt failed, if it did.
    pub(super) failure: Option<String>,
    /// How many attempts have failed.
    pub(super) failures: u64,
    /// When the next attempt is due after a failed one.
    pub(super) retry_at: Option<SystemTime>,
    logged: CertificateState,
}

/// An identity has no valid certificate.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{identity} has no valid certificate at this time: {reason}")]
pub struct CertificateUnavailable {
    identity: WorkloadIdentity,
    reason: String,
}

impl ManagedCertificate {
    pub(super) fn new(identity: WorkloadIdentity) -> Self {
        Self {
            identity,
            current: ArcSwapOption::empty(),
            progress: Mutex::default(),
            roused: Arc::default(),
        }
    }

    /// The certificate, whether valid or not.
    pub(super) fn current(&self) -> Option<Arc<CurrentCertificate>> {
        self.current.load_full()
    }

    /// The certificate, if it is valid at `now`.
    ///
    /// # Errors
    /// Why there is no valid one.
    pub(super) fn valid(
        &self,
        now: SystemTime,
    ) -> Result<Arc<CurrentCertificate>, CertificateUnavailable> {
        let current = self.current();
        let unavailable = |reason: String| CertificateUnavailable {
            identity: self.identity.clone(),
            reason,
        };
        let Some(current) = current else {
            return Err(unavailable(self.because("it is being requested")));
        };
        let validity = current.certificate.validity;
        match Timeliness::of(validity, now) {
            Timeliness::Valid => Ok(current),
            Timeliness::Expired => {
                let expired = format!("it expired at {}", rfc3339(validity.until));
                Err(unavailable(self.because(&expired)))
            }
            Timeliness::TooEarly => {
                let (from, now) = (rfc3339(validity.from), rfc3339(now));
                let early = format!("it is valid from {from}, and this node's clock says {now}");
                Err(unavailable(self.because(&early)))
            }
        }
    }

    /// How long until a new certificate should be requested: zero if there is no valid one.
    pub(super) fn due(&self, now: SystemTime) -> Duration {
        match self.valid(now) {
            Ok(current) => current.renews_at.duration_since(now).unwrap_or_default(),
            Err(_) => Duration::ZERO,
        }
    }

    pub(super) fn priority(&self, now: SystemTime) -> IssuePriority {
        match self.valid(now) {
            Ok(_) => IssuePriority::Renewal,
            Err(_) => IssuePriority::Awaited,
        }
    }

    /// Puts a new certificate into use.
    ///
    /// # Errors
    /// If the roots have changed in the meantime, and it cannot be used with them.
    pub(super) fn install(
        &self,
        certificate: CheckedCertificate,
        trust: &MeshTrust,
        now: SystemTime,
    ) -> Result<(), IssuedCertificateError> {
        let mut progress = self.progress();
        let left = certificate.validity.until.duration_since(now);
        let until_renewal = left
            .unwrap_or_default()
            .mul_f64(rand::random_range(RENEWED_AT));
        self.store(
            Arc::new(certificate),
            trust.verification()?,
            now + until_renewal,
        )?;
        progress.failure = None;
        progress.retry_at = None;
        self.log_change(&mut progress, now);
        Ok(())
    }

    /// Switches to the newest roots. If they do not accept the present certificate, it is renewed
    /// immediately.
    ///
    /// # Errors
    /// If peers cannot be verified with them. The roots in use stay in force.
    pub(super) fn follow(
        &self,
        trust: &MeshTrust,
        now: SystemTime,
    ) -> Result<(), IssuedCertificateError> {
        let _writing = self.progress();
        let Some(current) = self.current() else {
            return Ok(());
        };
        let verification = trust.verification()?;
        if verification.generation == current.verification.generation {
            return Ok(());
        }
        let chain = &current.certificate.issued.chain;
        let accepted = ensure_chain(chain, now, &verification.verifier);
        let renews_at = match &accepted {
            Ok(()) => current.renews_at,
            Err(_) => now,
        };
        self.store(Arc::clone(&current.certificate), verification, renews_at)?;
        if accepted.is_err() {
            tracing::warn!(identity = %self.identity, "the mesh's roots changed: the certificate is being renewed");
            self.roused.notify_one();
        }
        Ok(())
    }

    /// Records a failed attempt.
    pub(super) fn failed(&self, failure: String, retry_at: SystemTime, now: SystemTime) {
        let mut progress = self.progress();
        progress.failure = Some(failure);
        progress.failures += 1;
        progress.retry_at = Some(retry_at);
        self.log_change(&mut progress, now);
    }

    /// Logs if the certificate has expired in the meantime.
    pub(super) fn look(&self, now: SystemTime) {
        self.log_change(&mut self.progress(), now);
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, RenewalProgress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(
        &self,
        certificate: Arc<CheckedCertificate>,
        verification: Arc<Verification>,
        renews_at: SystemTime,
    ) -> Result<(), IssuedCertificateError> {
        let configs = TlsConfigs::new(&certificate.issued, &verification.verifier)
            .map_err(|error| IssuedCertificateError::Unreadable(error.to_string()))?;
        let epoch = self.current().map_or(1, |current| current.epoch + 1);
        self.current.store(Some(Arc::new(CurrentCertificate {
            certificate,
            configs,
            verification,
            epoch,
            renews_at,
            verified_by: AtomicU64::new(0),
        })));
        Ok(())
    }

    /// A reason, with why the last attempt failed if it did.
    fn because(&self, matter: &str) -> String {
        match &self.progress().failure {
            Some(failure) => format!("{matter}, and {failure}"),
            None => matter.to_owned(),
        }
    }

    /// Logs each change of state once, however many attempts fail.
    fn log_change(&self, progress: &mut RenewalProgress, now: SystemTime) {
        let current = self.current();
        let validity = current.as_ref().map(|current| current.certificate.validity);
        let timeliness = validity.map(|validity| Timeliness::of(validity, now));
        let state = CertificateState::of(timeliness, progress.failure.is_some());
        if state == progress.logged {
            return;
        }
        progress.logged = state;
        let identity = &self.identity;
        let until = validity.map(|validity| rfc3339(validity.until));
        let until = until.unwrap_or_default();
        let error = progress.failure.as_deref().unwrap_or_default();
        match state {
            CertificateState::Pending => {}
            CertificateState::Valid => tracing::info!(%identity, until, "certificate in use"),
            CertificateState::Missing => tracing::warn!(%identity, error, "no certificate yet"),
            CertificateState::Failing => tracing::warn!(
                %identity, until, error,
                "certificate not renewed: the old one serves until it expires"
            ),
            CertificateState::Expired => tracing::error!(
                %identity, until, error, "certificate expired: new connections are refused"
            ),
        }
    }
}

/// What the tasks of all identities share.
pub(super) struct Issuing {
    pub(super) provider: Arc<dyn CertificateProvider>,
    pub(super) trust: MeshTrust,
    pub(super) lifetime: Duration,
    pub(super) schedule: IssueSchedule,
    /// Counts how often an identity has obtained a valid certificate after having none.
    pub(super) arrivals: watch::Sender<u64>,
}

/// Requests and renews a certificate until its last holder is gone.
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
                tracing::debug!(identity = %held.identity, %failure, ?pause, "no certificate was issued");
                held.failed(failure.to_string(), now + pause, now);
            }
        }
    }
}

/// How long until a new certificate should be requested; `None` if its last holder is gone.
fn look(held: &Weak<ManagedCertificate>) -> Option<Duration> {
    let held = held.upgrade()?;
    let now = SystemTime::now();
    held.look(now);
    Some(held.due(now))
}

/// Waits, but no longer than until somebody calls for a renewal.
async fn doze(held: &Weak<ManagedCertificate>, longest: Duration) {
    let Some(roused) = held.upgrade().map(|held| Arc::clone(&held.roused)) else {
        return;
    };
    tokio::select! {
        () = roused.notified() => {}
        () = sleep(longest) => {}
    }
}

/// Waits for a slot. `None` if its last holder is gone.
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
            // It may have expired while waiting, and then comes first.
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
        Err(failure) if failure.is_of_ca() => CaReachability::Unavailable,
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
    Ok(check_issued(issued, &question, &verification.verifier)?)
}
