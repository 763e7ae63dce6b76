//! A file of roots that is followed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::anchors::{BundleError, TrustAnchors};

/// How often the file is read. Volumes of Kubernetes are replaced by symbolic links, of which not
/// every file system tells.
const LOOK: Duration = Duration::from_secs(1);

/// Why a file of roots cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the file of roots {} cannot be used: {problem}", path.display())]
pub struct BundleFileError {
    /// The file.
    path: PathBuf,
    /// What is the matter.
    problem: String,
}

/// The roots in a file, as they change. What breaks leaves the last good ones in force.
pub(super) struct BundleFile(Arc<Followed>);

struct Followed {
    path: PathBuf,
    published: watch::Sender<Arc<TrustAnchors>>,
    problem: Mutex<Option<String>>,
}

impl BundleFile {
    /// Reads a file once.
    ///
    /// # Errors
    /// [`BundleFileError`].
    pub(super) fn read(path: &Path) -> Result<TrustAnchors, BundleFileError> {
        let failed = |problem: String| BundleFileError {
            path: path.to_owned(),
            problem,
        };
        let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        TrustAnchors::from_pem(&text).map_err(|error: BundleError| failed(error.to_string()))
    }

    /// Reads a file and follows it, for as long as this is held. To be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`BundleFileError`] where it cannot be used from the first.
    pub(super) fn follow(path: &Path) -> Result<Self, BundleFileError> {
        let followed = Arc::new(Followed {
            path: path.to_owned(),
            published: watch::Sender::new(Arc::new(Self::read(path)?)),
            problem: Mutex::default(),
        });
        tokio::spawn(look(Arc::downgrade(&followed)));
        Ok(Self(followed))
    }

    /// The roots.
    pub(super) fn anchors(&self) -> watch::Receiver<Arc<TrustAnchors>> {
        self.0.published.subscribe()
    }

    /// Why the file as it is now is not followed.
    pub(super) fn problem(&self) -> Option<String> {
        self.0.problem().clone()
    }
}

async fn look(followed: Weak<Followed>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(followed) = followed.upgrade() else {
            return;
        };
        let path = followed.path.clone();
        // A file system that hangs must not hang anybody else.
        let read = tokio::task::spawn_blocking(move || BundleFile::read(&path)).await;
        match read {
            Ok(Ok(anchors)) => followed.take(anchors),
            Ok(Err(error)) => followed.keep(&error),
            Err(_) => return,
        }
    }
}

impl Followed {
    fn take(&self, anchors: TrustAnchors) {
        if self.problem().take().is_some() {
            tracing::info!(path = %self.path.display(), "the file of roots can be used again");
        }
        self.published.send_if_modified(|current| {
            let changed = **current != anchors;
            if changed {
                *current = Arc::new(anchors);
            }
            changed
        });
    }

    fn keep(&self, error: &BundleFileError) {
        let message = format!("{error}; the roots that it had last are in force");
        let mut problem = self.problem();
        if problem.is_none() {
            tracing::warn!("{message}");
        }
        *problem = Some(message);
    }

    fn problem(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
