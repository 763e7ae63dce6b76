//! Keeps a fresh certificate for each identity that somebody holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::{ClientConfig, ServerConfig};
use serde::Serialize;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use super::provider::{CertificateProvider, IssueError};
use super::tls::TlsConfigs;
use super::verify::TrustPolicy;
use crate::model::WorkloadIdentity;

/// Certificates that may be asked for at once.
const IN_FLIGHT: usize = 8;

/// The pause after a failed renewal, at first; doubled up to [`RETRY_LONGEST`].
const RETRY_FIRST: Duration = Duration::from_millis(500);

/// The longest pause after a failed renewal.
const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// How often the clock is looked at: it can be set, and a machine can sleep, while a timer runs.
const CLOCK_LOOK: Duration = Duration::from_secs(5);

/// The certificates of this node.
#[derive(Clone)]
pub struct Identities(Arc<Inner>);

struct Inner {
    provider: Arc<dyn CertificateProvider>,
    trust: TrustPolicy,
    lifetime: Duration,
    in_flight: Semaphore,
    /// Asked for one at a time, so that requests at the same time share one issuance.
    issuing: AsyncMutex<()>,
    held: Mutex<HashMap<WorkloadIdentity, Weak<Held>>>,
}

#[derive(Debug)]
struct Held {
    identity: WorkloadIdentity,
    current: ArcSwap<Current>,
}

#[derive(Debug)]
struct Current {
    configs: TlsConfigs,
    epoch: u64,
    serial: String,
    not_before: SystemTime,
    not_after: SystemTime,
    renews_at: SystemTime,
}

/// The certificate of one identity, always the newest. Renewal goes on for as long as somebody
/// holds it.
#[derive(Clone, Debug)]
pub struct WorkloadCertificates(Arc<Held>);

/// There is no valid certificate.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "the certificate of {identity} is not valid at this time, and no new one could be had yet; \
     see the agent's log for what its CA answers, and this node's clock"
)]
pub struct CertificateUnavailable {
    identity: WorkloadIdentity,
}

/// A certificate, for the operator. Times are seconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CertificateInfo {
    /// Whose it is.
    pub identity: WorkloadIdentity,
    /// Its serial number.
    pub serial: String,
    /// When it ends to be valid.
    pub not_after: u64,
    /// When it is to be renewed.
    pub renews_at: u64,
}

impl Identities {
    /// Certificates of `provider`, valid for `lifetime`.
    pub fn new(
        provider: Arc<dyn CertificateProvider>,
        trust: TrustPolicy,
        lifetime: Duration,
    ) -> Self {
        Self(Arc::new(Inner {
            provider,
            trust,
            lifetime,
            in_flight: Semaphore::new(IN_FLIGHT),
            issuing: AsyncMutex::new(()),
            held: Mutex::default(),
        }))
    }

    /// The certificate of an identity, issued now if nobody holds it. To be called within a tokio
    /// runtime, on which it is renewed.
    ///
    /// # Errors
    /// [`IssueError`] where none could be issued.
    pub async fn certificates(
        &self,
        identity: &WorkloadIdentity,
    ) -> Result<WorkloadCertificates, IssueError> {
        let _one_at_a_time = self.0.issuing.lock().await;
        if let Some(held) = self.held(identity) {
            return Ok(WorkloadCertificates(held));
        }
        let first = self.0.issue(identity, 1).await?;
        let held = Arc::new(Held {
            identity: identity.clone(),
            current: ArcSwap::from_pointee(first),
        });
        let mut all = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, held| held.strong_count() > 0);
        all.insert(identity.clone(), Arc::downgrade(&held));
        drop(all);
        tokio::spawn(renew(Arc::clone(&self.0), Arc::downgrade(&held)));
        Ok(WorkloadCertificates(held))
    }

    /// The certificates that somebody holds.
    pub fn list(&self) -> Vec<CertificateInfo> {
        let all = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        all.values()
            .filter_map(Weak::upgrade)
            .map(|held| held.describe())
            .collect()
    }

    fn held(&self, identity: &WorkloadIdentity) -> Option<Arc<Held>> {
        let all = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(identity)?.upgrade()
    }
}

impl Inner {
    async fn issue(&self, identity: &WorkloadIdentity, epoch: u64) -> Result<Current, IssueError> {
        let failed = |reason: String| IssueError {
            identity: identity.clone(),
            reason,
        };
        let _permit = self
            .in_flight
            .acquire()
            .await
            .map_err(|e| failed(e.to_string()))?;
        let issued = self.provider.issue(identity, self.lifetime).await?;
        let now = SystemTime::now();
        if !(issued.not_before..issued.not_after).contains(&now) {
            return Err(failed(format!(
                "the one that came is valid from {} to {} (seconds since 1970), and it is {} now; \
                 see the clocks of this node and of the CA",
                seconds(issued.not_before),
                seconds(issued.not_after),
                seconds(now),
            )));
        }
        let anchors = self.provider.trust_anchors();
        let configs = TlsConfigs::new(&issued, anchors, self.trust.clone())
            .map_err(|error| failed(error.to_string()))?;
        let left = issued.not_after.duration_since(now).unwrap_or_default();
        Ok(Current {
            configs,
            epoch,
            serial: issued.serial,
            not_before: issued.not_before,
            not_after: issued.not_after,
            // Half of it, less up to a tenth, so that many identities do not renew at once.
            renews_at: now + left.mul_f64(0.5 - 0.1 * rand::random::<f64>()),
        })
    }
}

/// Renews a certificate until nobody holds it.
async fn renew(inner: Arc<Inner>, held: Weak<Held>) {
    let mut pause = RETRY_FIRST;
    loop {
        let Some(wait) = held.upgrade().map(|held| held.current.load().due()) else {
            return;
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait.min(CLOCK_LOOK)).await;
            continue;
        }
        let Some(held) = held.upgrade() else { return };
        let epoch = held.current.load().epoch + 1;
        match inner.issue(&held.identity, epoch).await {
            Ok(renewed) => {
                tracing::info!(identity = %held.identity, serial = %renewed.serial, "certificate renewed");
                held.current.store(Arc::new(renewed));
                pause = RETRY_FIRST;
            }
            Err(error) => {
                let expires = seconds(held.current.load().not_after);
                tracing::warn!(%error, expires, "certificate not renewed; the old one serves until it expires");
                drop(held);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_LONGEST);
            }
        }
    }
}

impl Current {
    /// How long until it has to be renewed: not at all where the clock has been set to before its
    /// time.
    fn due(&self) -> Duration {
        let now = SystemTime::now();
        if now < self.not_before {
            return Duration::ZERO;
        }
        self.renews_at.duration_since(now).unwrap_or_default()
    }
}

impl Held {
    fn describe(&self) -> CertificateInfo {
        let current = self.current.load();
        CertificateInfo {
            identity: self.identity.clone(),
            serial: current.serial.clone(),
            not_after: seconds(current.not_after),
            renews_at: seconds(current.renews_at),
        }
    }

    fn valid(&self) -> Result<Arc<Current>, CertificateUnavailable> {
        let current = self.current.load_full();
        if (current.not_before..current.not_after).contains(&SystemTime::now()) {
            return Ok(current);
        }
        Err(CertificateUnavailable {
            identity: self.identity.clone(),
        })
    }
}

impl WorkloadCertificates {
    /// Whose they are.
    pub fn identity(&self) -> &WorkloadIdentity {
        &self.0.identity
    }

    /// The configuration for accepting tunnels.
    ///
    /// # Errors
    /// [`CertificateUnavailable`] where the certificate is not valid at this time.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, CertificateUnavailable> {
        Ok(Arc::clone(&self.0.valid()?.configs.server))
    }

    /// The configuration for opening tunnels. It does not tell whose the other end is.
    ///
    /// # Errors
    /// [`CertificateUnavailable`] where the certificate is not valid at this time.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, CertificateUnavailable> {
        Ok(Arc::clone(&self.0.valid()?.configs.client))
    }

    /// Changes with each renewal.
    pub fn epoch(&self) -> u64 {
        self.0.current.load().epoch
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
