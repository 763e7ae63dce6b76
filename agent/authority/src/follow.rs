//! Follows an authority's files, on a thread of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::error::{CaFilesError, file};
use super::files::CaFileSet;
use crate::authority::CertificateAuthority;
use ambit_input::FileFollower;
use ambit_model::TrustDomain;

/// The authority in a directory, always the last good one. Dropping it ends the following.
///
/// The files are read every few seconds: a Secret's are replaced by other links, a network's without
/// a notice, and they are few and small.
#[derive(Debug)]
pub struct AuthorityFiles {
    latest: watch::Receiver<Arc<CertificateAuthority>>,
    follower: FileFollower,
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
        let (path, trust_domain) = (directory.to_owned(), trust_domain.clone());
        let mut in_force = files.fingerprint();
        let look = move || {
            let files = CaFileSet::read(&path)?;
            let found = files.fingerprint();
            if found != in_force {
                let authority = CertificateAuthority::from_files(&files, &trust_domain)?;
                changed(&authority);
                in_force = found;
                published.send_replace(Arc::new(authority));
                tracing::info!(directory = %path.display(), "the CA's files have changed, and are in force");
            }
            Ok::<(), CaFilesError>(())
        };
        let report = |fault: Option<&str>| match fault {
            Some(fault) => tracing::warn!("{fault}; the CA goes on with its last good files"),
            None => tracing::info!("the CA's files are in order again"),
        };
        let follower = FileFollower::start("ambit-ca-files", interval, look, report);
        Ok(Self {
            latest,
            follower: follower.map_err(file(directory))?,
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
        self.follower.fault()
    }
}
