//! Follows a CA's files.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::error::{CaFilesError, file};
use super::files::CaFileSet;
use crate::authority::CertificateAuthority;
use ambit_input::FileFollower;
use ambit_model::TrustDomain;

/// The CA in a directory: always the last good version of its files, which are followed until this is
/// dropped.
#[derive(Debug)]
pub struct AuthorityFiles {
    latest: watch::Receiver<Arc<CertificateAuthority>>,
    follower: FileFollower,
}

impl AuthorityFiles {
    /// Opens a CA, and reads its files again at each interval. If they become unusable, or only some of
    /// them have been replaced, the last good ones stay in force.
    ///
    /// # Errors
    /// [`CaFilesError`] if the files cannot be used at first.
    pub fn follow(
        directory: &Path,
        trust_domain: &TrustDomain,
        interval: Duration,
    ) -> Result<Self, CaFilesError> {
        Self::follow_with(directory, trust_domain, interval, |_| {})
    }

    /// Like [`AuthorityFiles::follow`], and calls `changed` with each version, including the first,
    /// before it is in force.
    ///
    /// # Errors
    /// [`CaFilesError`] if the files cannot be used at first.
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
                tracing::info!(directory = %path.display(), "the CA's files have changed, and the new ones are in force");
            }
            Ok::<(), CaFilesError>(())
        };
        let report = |fault: Option<&str>| match fault {
            Some(fault) => tracing::warn!("{fault}; the CA keeps using its last good files"),
            None => tracing::info!("the CA's files can be used again"),
        };
        let follower = FileFollower::start("ambit-ca-files", interval, look, report);
        Ok(Self {
            latest,
            follower: follower.map_err(file(directory))?,
        })
    }

    /// The present version.
    pub fn latest(&self) -> Arc<CertificateAuthority> {
        Arc::clone(&self.latest.borrow())
    }

    /// The present version, and each one after it.
    pub fn subscribe(&self) -> watch::Receiver<Arc<CertificateAuthority>> {
        self.latest.clone()
    }

    /// Why the present files are not in force; `None` if they are.
    pub fn fault(&self) -> Option<String> {
        self.follower.fault()
    }
}
