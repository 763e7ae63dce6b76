use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

use super::Root;
use crate::identity::provider::{CertificateProvider, IssueError, IssueFuture};
use crate::identity::{Identities, TrustPolicy};
use crate::model::{TrustDomain, WorkloadIdentity};

/// Far longer than any test takes.
const LONG: Duration = Duration::from_secs(3600);

/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// An authority that counts, and that can be made to fail.
struct Counting {
    root: Root,
    issued: AtomicUsize,
    fails: AtomicBool,
    /// By how many seconds its clock is ahead.
    ahead: AtomicU64,
}

impl Counting {
    fn make() -> Arc<Self> {
        Arc::new(Self {
            root: Root::make(),
            issued: AtomicUsize::new(0),
            fails: AtomicBool::new(false),
            ahead: AtomicU64::new(0),
        })
    }

    fn identities(self: &Arc<Self>, lifetime: Duration) -> Identities {
        let trust = TrustPolicy {
            trust_domain: TrustDomain::new("cluster.local").unwrap(),
            aliases: Vec::new(),
        };
        Identities::new(
            Arc::clone(self) as Arc<dyn CertificateProvider>,
            trust,
            lifetime,
        )
    }
}

impl CertificateProvider for Counting {
    fn issue<'a>(&'a self, identity: &'a WorkloadIdentity, lifetime: Duration) -> IssueFuture<'a> {
        Box::pin(async move {
            // Whoever asks at the same time has the chance to ask too.
            tokio::task::yield_now().await;
            if self.fails.load(Ordering::SeqCst) {
                return Err(IssueError {
                    identity: identity.clone(),
                    reason: "out of ink".to_owned(),
                });
            }
            self.issued.fetch_add(1, Ordering::SeqCst);
            let ahead = Duration::from_secs(self.ahead.load(Ordering::SeqCst));
            let now = SystemTime::now() + ahead;
            Ok(self
                .root
                .sign(&[&identity.spiffe_id()], [now, now + lifetime]))
        })
    }

    fn trust_anchors(&self) -> Vec<CertificateDer<'static>> {
        vec![self.root.certificate.clone()]
    }
}

fn identity(account: &str) -> WorkloadIdentity {
    let domain = TrustDomain::new("cluster.local").unwrap();
    WorkloadIdentity::new(domain, "prod", account).unwrap()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect(what);
}

#[tokio::test]
async fn one_certificate_serves_all_who_ask_at_once() {
    let authority = Counting::make();
    let identities = authority.identities(LONG);
    let web = identity("web");
    let asked = futures_util::future::join_all((0..20).map(|_| identities.certificates(&web)));
    let held: Vec<_> = asked.await.into_iter().map(Result::unwrap).collect();
    assert_eq!(authority.issued.load(Ordering::SeqCst), 1);
    assert!(held.iter().all(|own| *own.identity() == web));
    identities.certificates(&identity("db")).await.unwrap();
    assert_eq!(authority.issued.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_certificate_is_renewed_in_its_first_half() {
    let identities = Counting::make().identities(Duration::from_secs(2));
    let held = identities.certificates(&identity("web")).await.unwrap();
    let first = identities.list();
    assert!(first[0].renews_at < first[0].not_after);
    let old = held.server_config().unwrap();
    eventually("a renewal", || held.epoch() > 1).await;
    assert!(SystemTime::now() < SystemTime::UNIX_EPOCH + Duration::from_secs(first[0].not_after));
    assert!(!Arc::ptr_eq(&old, &held.server_config().unwrap()));
}

#[tokio::test]
async fn a_configuration_is_made_once_for_a_certificate() {
    let identities = Counting::make().identities(LONG);
    let held = identities.certificates(&identity("web")).await.unwrap();
    let (one, two) = (held.server_config().unwrap(), held.server_config().unwrap());
    assert!(Arc::ptr_eq(&one, &two));
}

#[tokio::test]
async fn a_failed_renewal_keeps_the_old_one_until_it_expires_and_recovers() {
    let authority = Counting::make();
    let identities = authority.identities(Duration::from_secs(2));
    let held = identities.certificates(&identity("web")).await.unwrap();
    authority.fails.store(true, Ordering::SeqCst);
    held.client_config().unwrap();
    eventually("the end of the old certificate", || {
        held.client_config().is_err()
    })
    .await;
    assert_eq!(held.epoch(), 1);
    let error = held.server_config().unwrap_err().to_string();
    assert!(error.contains("is not valid at this time"), "{error}");
    authority.fails.store(false, Ordering::SeqCst);
    eventually("a new certificate", || held.server_config().is_ok()).await;
}

#[tokio::test]
async fn a_certificate_of_another_time_is_refused() {
    let authority = Counting::make();
    let identities = authority.identities(LONG);
    authority.ahead.store(600, Ordering::SeqCst);
    let error = identities.certificates(&identity("web")).await.unwrap_err();
    assert!(error.to_string().contains("see the clocks"), "{error}");
    authority.ahead.store(0, Ordering::SeqCst);
    identities.certificates(&identity("web")).await.unwrap();
}

#[tokio::test]
async fn no_certificate_is_an_error_and_not_remembered() {
    let authority = Counting::make();
    let identities = authority.identities(LONG);
    authority.fails.store(true, Ordering::SeqCst);
    let error = identities.certificates(&identity("web")).await.unwrap_err();
    assert!(error.to_string().contains("out of ink"), "{error}");
    authority.fails.store(false, Ordering::SeqCst);
    identities.certificates(&identity("web")).await.unwrap();
}

#[tokio::test]
async fn what_nobody_holds_is_not_renewed() {
    let authority = Counting::make();
    let identities = authority.identities(Duration::from_millis(400));
    drop(identities.certificates(&identity("web")).await.unwrap());
    assert_eq!(identities.list(), []);
    let other = identities.certificates(&identity("db")).await.unwrap();
    eventually("a renewal of the other", || other.epoch() > 2).await;
    let others = usize::try_from(other.epoch()).unwrap();
    assert_eq!(authority.issued.load(Ordering::SeqCst), 1 + others);
}
