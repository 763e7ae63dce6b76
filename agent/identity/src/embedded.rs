//! A CA inside the agent: its files are on disk, workloads' certificates in memory only.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::KeyPair;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::watch;

use super::issued::IssuedCertificate;
use super::provider::{CertificateProvider, IssueFailure, IssueFuture};
use crate::roots::TrustAnchors;
use ambit_authority::{
    AuthorityFiles, CaFilesError, CertificateAuthority, IssueError, SubjectKey,
    check_open_or_make_root, open_or_make_root,
};
use ambit_model::{TrustDomain, WorkloadIdentity};

/// How often the CA's files are read.
const INTERVAL: Duration = Duration::from_secs(2);

/// A certificate authority inside the agent, for development and single clusters.
#[derive(Debug)]
pub struct EmbeddedCa {
    files: AuthorityFiles,
    anchors: watch::Receiver<Arc<TrustAnchors>>,
}

impl EmbeddedCa {
    /// Opens the CA in `directory`, or creates a root on first start, and follows its files. Several
    /// agents may do this at the same time.
    ///
    /// # Errors
    /// [`CaFilesError`]. An existing CA is never replaced.
    pub fn open(directory: &Path, trust_domain: &TrustDomain) -> Result<Self, CaFilesError> {
        Self::open_and_look(directory, trust_domain, INTERVAL)
    }

    /// Checks whether [`EmbeddedCa::open`] would succeed, as far as possible without changing anything.
    ///
    /// # Errors
    /// [`CaFilesError`].
    pub fn check(directory: &Path, trust_domain: &TrustDomain) -> Result<(), CaFilesError> {
        check_open_or_make_root(directory, trust_domain)
    }

    fn open_and_look(
        directory: &Path,
        trust_domain: &TrustDomain,
        interval: Duration,
    ) -> Result<Self, CaFilesError> {
        let made = open_or_make_root(directory, trust_domain)?;
        let (publish, anchors) = watch::channel(anchors(&made));
        let changed = move |authority: &CertificateAuthority| {
            publish.send_replace(self::anchors(authority));
        };
        Ok(Self {
            files: AuthorityFiles::follow_with(directory, trust_domain, interval, changed)?,
            anchors,
        })
    }

    fn sign(
        &self,
        identity: &WorkloadIdentity,
        lifetime: Duration,
    ) -> Result<IssuedCertificate, IssueError> {
        let key = KeyPair::generate().map_err(|error| IssueError::Signing(error.to_string()))?;
        let authority = self.files.latest();
        let issued = authority.issue_workload(identity, &SubjectKey::of(&key), lifetime)?;
        Ok(IssuedCertificate {
            chain: issued.chain,
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        })
    }
}

impl CertificateProvider for EmbeddedCa {
    fn issue<'a>(&'a self, identity: &'a WorkloadIdentity, lifetime: Duration) -> IssueFuture<'a> {
        let issued = self.sign(identity, lifetime);
        let issued = issued.map_err(|error| IssueFailure::Refused(error.to_string()));
        Box::pin(std::future::ready(issued))
    }

    fn anchors(&self) -> watch::Receiver<Arc<TrustAnchors>> {
        self.anchors.clone()
    }

    /// Why the present files are not in force; `None` if they are.
    fn problem(&self) -> Option<String> {
        self.files.fault()
    }
}

fn anchors(authority: &CertificateAuthority) -> Arc<TrustAnchors> {
    Arc::new(TrustAnchors::new(authority.roots().iter().cloned()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use rustls::pki_types::CertificateDer;

    use super::*;
    use ambit_authority::{encode_pem, make_root};

    const KEY: &str = "ca-key.pem";
    const ROOTS: &str = "root-cert.pem";

    /// How many times a test looks before it gives up.
    const PATIENCE: usize = 2000;

    fn domain() -> TrustDomain {
        TrustDomain::new("cluster.local").unwrap()
    }

    fn open(directory: &Path) -> Result<EmbeddedCa, CaFilesError> {
        EmbeddedCa::open_and_look(directory, &domain(), Duration::from_millis(5))
    }

    fn trusted(ca: &EmbeddedCa) -> Arc<TrustAnchors> {
        Arc::clone(&ca.anchors().borrow())
    }

    fn root(directory: &Path) -> CertificateDer<'static> {
        let anchors = trusted(&open(directory).unwrap());
        let [root] = anchors.certificates() else {
            panic!("{anchors:?}");
        };
        root.clone()
    }

    #[test]
    fn agents_that_start_together_share_one_root() {
        let directory = tempfile::tempdir().unwrap();
        let roots = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| root(directory.path())))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect::<Vec<_>>()
        });
        assert!(roots.iter().all(|root| *root == roots[0]));
    }

    #[test]
    fn a_check_predicts_the_result_of_open_and_creates_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("ca");
        EmbeddedCa::check(&at, &domain()).unwrap();
        assert!(!at.exists());
        fs::write(&at, "a file").unwrap();
        EmbeddedCa::check(&at, &domain()).unwrap_err();
        fs::remove_file(&at).unwrap();
        open(&at).unwrap();
        EmbeddedCa::check(&at, &domain()).unwrap();
        for missing in [ROOTS, "ca-cert.pem"] {
            fs::remove_file(at.join(missing)).unwrap();
            EmbeddedCa::check(&at, &domain()).unwrap();
        }
        fs::write(at.join(ROOTS), "").unwrap();
        let error = EmbeddedCa::check(&at, &domain()).unwrap_err();
        assert!(matches!(error, CaFilesError::Half { .. }), "{error}");
        fs::remove_file(at.join(ROOTS)).unwrap();
        fs::write(at.join(KEY), "no key").unwrap();
        EmbeddedCa::check(&at, &domain()).unwrap_err();
    }

    #[test]
    fn an_incomplete_root_an_exposed_key_and_a_foreign_root_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        open(directory.path()).unwrap();
        let other = TrustDomain::new("other.example").unwrap();
        let error = EmbeddedCa::open(directory.path(), &other).unwrap_err();
        assert!(matches!(error, CaFilesError::Certificate { .. }), "{error}");
        let key = directory.path().join(KEY);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let error = open(directory.path()).unwrap_err();
        assert!(matches!(error, CaFilesError::KeyExposed { .. }), "{error}");
        fs::remove_file(&key).unwrap();
        let error = open(directory.path()).unwrap_err();
        assert!(matches!(error, CaFilesError::Half { .. }), "{error}");
    }

    #[test]
    fn a_root_whose_agent_died_while_creating_it_is_completed() {
        for written in [&[KEY][..], &[KEY, "ca-cert.pem"]] {
            let (whole, begun) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            root(whole.path());
            for name in written {
                fs::copy(whole.path().join(name), begun.path().join(name)).unwrap();
            }
            let made = root(begun.path());
            assert_eq!(made, root(begun.path()));
            assert_eq!(made == root(whole.path()), written.len() > 1, "{written:?}");
        }
    }

    #[test]
    fn a_key_of_another_root_is_refused() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        root(one.path());
        root(other.path());
        fs::copy(other.path().join(KEY), one.path().join(KEY)).unwrap();
        let error = open(one.path()).unwrap_err();
        assert!(error.to_string().contains("does not belong"), "{error}");
    }

    #[test]
    fn a_root_that_is_added_is_trusted_without_a_restart() {
        let (own, next) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ca = open(own.path()).unwrap();
        let old = trusted(&ca);
        let new = make_root(next.path(), &domain(), Duration::from_secs(3600)).unwrap();
        let bundle = [old.certificates(), new.roots()].concat();
        fs::write(own.path().join(ROOTS), encode_pem(&bundle)).unwrap();
        let mut looks = 0..PATIENCE;
        let expected = TrustAnchors::new(bundle);
        // A look while the file is being written finds a fault, and the next look clears it.
        while *trusted(&ca) != expected || ca.problem().is_some() {
            looks.next().expect("a new root, and no fault");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
