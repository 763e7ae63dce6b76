//! A CA in this process, whose behaviour tests control.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};

use super::{Root, trust};
use crate::identities::{Identities, WorkloadCertificates};
use crate::provider::{CertificateProvider, IssueFailure, IssueFuture};
use crate::roots::TrustAnchors;
use ambit_model::WorkloadIdentity;

/// A CA that counts requests and can be made to fail.
pub(super) struct TestCa {
    roots: Mutex<Arc<Root>>,
    anchors: watch::Sender<Arc<TrustAnchors>>,
    pub(super) asked: AtomicUsize,
    pub(super) issued: AtomicUsize,
    pub(super) fails: AtomicBool,
    pub(super) is_down: AtomicBool,
    /// How many seconds its clock is ahead.
    pub(super) ahead: AtomicU64,
    /// Accounts whose certificates it never finishes.
    pub(super) stuck: Mutex<HashSet<String>>,
}

impl TestCa {
    pub(super) fn make() -> Arc<Self> {
        let root = Root::make();
        Arc::new(Self {
            anchors: watch::Sender::new(Arc::new(root.anchors())),
            roots: Mutex::new(Arc::new(root)),
            asked: AtomicUsize::new(0),
            issued: AtomicUsize::new(0),
            fails: AtomicBool::new(false),
            is_down: AtomicBool::new(false),
            ahead: AtomicU64::new(0),
            stuck: Mutex::default(),
        })
    }

    pub(super) fn identities(self: &Arc<Self>, lifetime: Duration) -> Identities {
        let provider = Arc::clone(self) as Arc<dyn CertificateProvider>;
        Identities::new(provider, trust(&[]), lifetime)
    }

    /// Signs with another root from now on.
    pub(super) fn sign_with(&self, root: Arc<Root>) {
        *self.roots.lock().unwrap() = root;
    }

    pub(super) fn root(&self) -> Arc<Root> {
        Arc::clone(&self.roots.lock().unwrap())
    }

    /// Publishes these as the mesh's roots.
    pub(super) fn publish(&self, roots: &[&Root]) {
        let roots = roots.iter().map(|root| root.certificate.clone());
        self.anchors
            .send_replace(Arc::new(TrustAnchors::new(roots)));
    }
}

impl CertificateProvider for TestCa {
    fn issue<'a>(&'a self, identity: &'a WorkloadIdentity, lifetime: Duration) -> IssueFuture<'a> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            // Others who ask at the same time get to ask too.
            tokio::task::yield_now().await;
            let is_stuck = |stuck: &HashSet<String>| stuck.contains(identity.service_account());
            if is_stuck(&self.stuck.lock().unwrap()) {
                Notify::new().notified().await;
            }
            if self.is_down.load(Ordering::SeqCst) {
                return Err(IssueFailure::Unavailable("nobody is there".to_owned()));
            }
            if self.fails.load(Ordering::SeqCst) {
                return Err(IssueFailure::Refused("out of ink".to_owned()));
            }
            self.issued.fetch_add(1, Ordering::SeqCst);
            let ahead = Duration::from_secs(self.ahead.load(Ordering::SeqCst));
            let now = SystemTime::now() + ahead;
            let uri = identity.spiffe_id();
            Ok(self.root().sign(&[&uri], [now, now + lifetime]))
        })
    }

    fn anchors(&self) -> watch::Receiver<Arc<TrustAnchors>> {
        self.anchors.subscribe()
    }
}

/// Waits until there is a valid certificate.
pub(super) async fn ready(held: &WorkloadCertificates) {
    super::eventually("a certificate", || held.ready().is_ok()).await;
}
