//! The certificates of this node: one for each identity that somebody holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::introduction::{IntroductionError, introduce};
use crate::managed::{CertificateUnavailable, Issuing, ManagedCertificate, keep};
use crate::provider::CertificateProvider;
use crate::roots::{MeshTrust, TrustAnchors};
use crate::schedule::IssueSchedule;
use crate::status::{CertificateInfo, faults};
use crate::tls::{ClientTls, ServerTls, VerifiedPeer};
use crate::verify::{PeerIdentityError, TrustPolicy};
use ambit_authority::encode_pem;
use ambit_model::{Fault, WorkloadIdentity};

/// The certificates of all identities of this node.
#[derive(Clone)]
pub struct Identities(Arc<Inner>);

struct Inner {
    issuing: Arc<Issuing>,
    held: Mutex<HashMap<WorkloadIdentity, Weak<ManagedCertificate>>>,
}

/// One identity's certificate, always the newest. It is renewed while somebody holds this.
#[derive(Clone, Debug)]
pub struct WorkloadCertificates(Arc<ManagedCertificate>);

/// The chain that an identity presents to its peers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PresentedChain {
    /// The identity.
    pub identity: WorkloadIdentity,
    /// The chain in PEM, leaf first, without the root. Empty if there is no certificate yet.
    pub pem: String,
}

impl Identities {
    /// Certificates from `provider`, valid for `lifetime`. Must be called within a tokio runtime, which
    /// then runs the renewals and follows the roots.
    pub fn new(
        provider: Arc<dyn CertificateProvider>,
        trust: TrustPolicy,
        lifetime: Duration,
    ) -> Self {
        let issuing = Issuing {
            trust: MeshTrust::new(provider.anchors(), trust),
            provider,
            lifetime,
            schedule: IssueSchedule::default(),
            arrivals: watch::Sender::new(0),
        };
        let changes = issuing.trust.changes();
        let inner = Arc::new(Inner {
            issuing: Arc::new(issuing),
            held: Mutex::default(),
        });
        tokio::spawn(follow_roots(Arc::downgrade(&inner), changes));
        Self(inner)
    }

    /// Holds an identity's certificate. The first holder has it requested. All holders share it.
    /// Must be called within a tokio runtime.
    pub fn hold(&self, identity: &WorkloadIdentity) -> WorkloadCertificates {
        let mut all = self.0.held();
        if let Some(held) = all.get(identity).and_then(Weak::upgrade) {
            return WorkloadCertificates(held);
        }
        let held = Arc::new(ManagedCertificate::new(identity.clone()));
        all.retain(|_, held| held.strong_count() > 0);
        all.insert(identity.clone(), Arc::downgrade(&held));
        drop(all);
        tokio::spawn(keep(Arc::clone(&self.0.issuing), Arc::downgrade(&held)));
        WorkloadCertificates(held)
    }

    /// Changes each time an identity obtains a valid certificate after having none.
    pub fn arrivals(&self) -> watch::Receiver<u64> {
        self.0.issuing.arrivals.subscribe()
    }

    /// All certificates that somebody holds, ordered by identity.
    pub fn list(&self) -> Vec<CertificateInfo> {
        let now = SystemTime::now();
        let all = self.0.all();
        all.iter()
            .map(|held| CertificateInfo::of(held, now))
            .collect()
    }

    /// The chains that all identities present, ordered by identity.
    pub fn chains(&self) -> Vec<PresentedChain> {
        let all = self.0.all();
        let chains = all.iter().map(|held| {
            let current = held.current();
            let chain = current.map(|current| encode_pem(&current.certificate.issued.chain));
            PresentedChain {
                identity: held.identity.clone(),
                pem: chain.unwrap_or_default(),
            }
        });
        chains.collect()
    }

    /// The faults of these certificates, which come from [`Self::list`], and of the provider.
    pub fn faults(&self, certificates: &[CertificateInfo]) -> Vec<Fault> {
        let mut faults = faults(certificates);
        faults.extend(self.0.issuing.provider.problem().map(|message| Fault {
            subject: "the source of certificates".to_owned(),
            message,
            last_good_in_force: true,
        }));
        faults
    }

    /// Whether requests are held back for a while because the CA could not be reached.
    pub fn is_ca_unavailable(&self) -> bool {
        self.0.issuing.schedule.is_resting()
    }
}

impl Inner {
    fn held(&self) -> MutexGuard<'_, HashMap<WorkloadIdentity, Weak<ManagedCertificate>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<ManagedCertificate>> {
        let mut all: Vec<_> = self.held().values().filter_map(Weak::upgrade).collect();
        all.sort_unstable_by(|one, other| one.identity.cmp(&other.identity));
        all
    }
}

/// Switches all identities to the new roots whenever the roots change.
async fn follow_roots(inner: Weak<Inner>, mut changes: watch::Receiver<Arc<TrustAnchors>>) {
    while changes.changed().await.is_ok() {
        let Some(inner) = inner.upgrade() else { return };
        tracing::info!(
            roots = changes.borrow_and_update().certificates().len(),
            "the mesh's roots changed"
        );
        let now = SystemTime::now();
        for held in inner.all() {
            if let Err(error) = held.follow(&inner.issuing.trust, now) {
                tracing::error!(%error, "the mesh's new roots cannot be used; the old ones stay in force");
            }
        }
    }
}

impl WorkloadCertificates {
    /// The identity.
    pub fn identity(&self) -> &WorkloadIdentity {
        &self.0.identity
    }

    /// Checks that there is a valid certificate at this time.
    ///
    /// # Errors
    /// [`CertificateUnavailable`] if there is none.
    pub fn ready(&self) -> Result<(), CertificateUnavailable> {
        self.0.valid(SystemTime::now()).map(drop)
    }

    /// The configuration for accepting tunnels.
    ///
    /// # Errors
    /// [`CertificateUnavailable`] if there is no valid certificate at this time.
    pub fn server(&self) -> Result<ServerTls, CertificateUnavailable> {
        let current = self.0.valid(SystemTime::now())?;
        Ok(ServerTls::new(&current))
    }

    /// The configuration for opening tunnels.
    ///
    /// # Errors
    /// [`CertificateUnavailable`] if there is no valid certificate at this time.
    pub fn client(&self) -> Result<ClientTls, CertificateUnavailable> {
        let current = self.0.valid(SystemTime::now())?;
        Ok(ClientTls::new(&current))
    }

    /// Checks what a handshake with `server`, another workload of this node, would: each of the two has a
    /// certificate that is valid at this time, and each accepts the other's by the roots that it has now.
    /// That each holds its key, and is who its certificate says, was checked when it was issued.
    ///
    /// # Errors
    /// [`IntroductionError`].
    pub fn ensure_introduced(&self, server: &Self) -> Result<(), IntroductionError> {
        introduce(&self.0, &server.0, SystemTime::now())
    }

    /// Checks that a peer which was verified when its connection was opened is still acceptable: its
    /// certificate has not expired, and the roots have not changed or accept it too.
    ///
    /// # Errors
    /// [`PeerIdentityError::NoLonger`].
    pub fn ensure_accepted(&self, peer: &VerifiedPeer) -> Result<(), PeerIdentityError> {
        let current = self.0.current();
        peer.ensure_accepted(current.as_deref(), SystemTime::now())
    }
}
