//! Follows an authority's files, on a thread of its own.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use super::error::{CaFilesError, file};
use super::files::{CaFileSet, Fingerprint};
use super::signer::CertificateAuthority;
use ambit_model::TrustDomain;

/// What is wrong with the files now.
type Fault = Arc<Mutex<Option<String>>>;

/// The authority in a directory, always the last good one. Dropping it ends the following.
///
/// The files are read every few seconds: a Secret's are replaced by other links, a network's without
/// a notice, and they are few and small.
#[derive(Debug)]
pub struct AuthorityFiles {
    latest: watch::Receiver<Arc<CertificateAuthority>>,
    fault: Fault,
    /// Never sent on: the thread ends with it.
    _follows: mpsc::Sender<Infallible>,
}

impl AuthorityFiles {
    /// Opens an authority, and looks for changes of its files at this interval from then on. A set
    /// that cannot be used, or is half replaced, leaves the last good one in force.
    ///
    /// # Errors
    /// [`CaFilesError`] where the first set cannot be used.
    pub fn follow(
        directory: &Path,
        trust_domain: &TrustDomain,
        interval: Duration,
    ) -> Result<Self, CaFilesError> {
        Self::follow_with(directory, trust_domain, interval, |_| {})
    }

    /// The same, and tells of each new authority, of the first one too, before it is the latest.
    ///
    /// # Errors
    /// [`CaFilesError`] where the first set cannot be used.
    pub fn follow_with(
        directory: &Path,
        trust_domain: &TrustDomain,
        interval: Duration,
        mut changed: impl FnMut(&CertificateAuthority) + Send + 'static,
    ) -> Result<Self, CaFilesError> {
        let files = CaFileSet::read(directory)?;
        let authority = CertificateAuthority::from_files(&files, trust_domain)?;
        changed(&authority);
        let (published, latest) = watch::channel(Arc::new(authority));
        let (follows, ended) = mpsc::channel();
        let fault = Fault::default();
        let follower = Follower {
            directory: directory.to_owned(),
            trust_domain: trust_domain.clone(),
            in_force: files.fingerprint(),
            fault: Arc::clone(&fault),
            changed,
            published,
        };
        thread::Builder::new()
            .name("ambit-ca-files".to_owned())
            .spawn(move || follower.run(&ended, interval))
            .map_err(file(directory))?;
        Ok(Self {
            latest,
            fault,
            _follows: follows,
        })
    }

    /// The authority now.
    pub fn latest(&self) -> Arc<CertificateAuthority> {
        Arc::clone(&self.latest.borrow())
    }

    /// The authority now, and each one after it.
    pub fn subscribe(&self) -> watch::Receiver<Arc<CertificateAuthority>> {
        self.latest.clone()
    }

    /// Why the files as they are now are not in force.
    pub fn fault(&self) -> Option<String> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.clone()
    }
}

struct Follower<F> {
    directory: PathBuf,
    trust_domain: TrustDomain,
    in_force: Fingerprint,
    fault: Fault,
    changed: F,
    published: watch::Sender<Arc<CertificateAuthority>>,
}

impl<F: FnMut(&CertificateAuthority)> Follower<F> {
    fn run(mut self, ended: &Receiver<Infallible>, interval: Duration) {
        while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            let fault = self.look().err().map(|error| error.to_string());
            self.report(fault);
        }
    }

    /// Puts the files in force if they are others. What failed is tried again even if they are not:
    /// time may have mended it.
    fn look(&mut self) -> Result<(), CaFilesError> {
        let files = CaFileSet::read(&self.directory)?;
        let found = files.fingerprint();
        if found != self.in_force {
            let authority = CertificateAuthority::from_files(&files, &self.trust_domain)?;
            (self.changed)(&authority);
            self.in_force = found;
            self.published.send_replace(Arc::new(authority));
            tracing::info!(directory = %self.directory.display(), "the CA's files have changed, and are in force");
        }
        Ok(())
    }

    fn report(&self, fault: Option<String>) {
        let mut known = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == fault {
            return;
        }
        match &fault {
            Some(fault) => tracing::warn!("{fault}; the CA goes on with its last good files"),
            None => tracing::info!("the fault of the CA's files is mended"),
        }
        *known = fault;
    }
}
