//! A file of roots that is followed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::anchors::{BundleError, LARGEST_BUNDLE, TrustAnchors};
use ambit_input::{FileFollower, read_bounded};

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

/// The roots in a file, followed. If the file becomes unusable, the last good roots stay in force.
pub(super) struct BundleFile {
    published: watch::Receiver<Arc<TrustAnchors>>,
    follower: FileFollower,
}

impl BundleFile {
    /// Reads the file once.
    ///
    /// # Errors
    /// [`BundleFileError`].
    pub(super) fn read(path: &Path) -> Result<TrustAnchors, BundleFileError> {
        let failed = |problem: String| BundleFileError {
            path: path.to_owned(),
            problem,
        };
        let file = File::open(path).map_err(|error| failed(error.to_string()))?;
        let text = read_bounded(file, LARGEST_BUNDLE as u64);
        let text = text.map_err(|error| failed(error.to_string()))?;
        TrustAnchors::from_pem(&text).map_err(|error: BundleError| failed(error.to_string()))
    }

    /// Reads the file, and follows it until this is dropped.
    ///
    /// # Errors
    /// [`BundleFileError`] if it cannot be used at first.
    pub(super) fn follow(path: &Path) -> Result<Self, BundleFileError> {
        let (publish, published) = watch::channel(Arc::new(Self::read(path)?));
        let (read, logged) = (path.to_owned(), path.to_owned());
        let look = move || {
            let anchors = Self::read(&read)?;
            publish.send_if_modified(|current| {
                let changed = **current != anchors;
                if changed {
                    *current = Arc::new(anchors);
                }
                changed
            });
            Ok::<(), BundleFileError>(())
        };
        let report = move |fault: Option<&str>| match fault {
            Some(fault) => tracing::warn!("{}", with_consequence(fault)),
            None => {
                tracing::info!(path = %logged.display(), "the file of roots can be used again");
            }
        };
        let follower = FileFollower::start("ambit-roots", LOOK, look, report);
        Ok(Self {
            published,
            follower: follower.map_err(|error| BundleFileError {
                path: path.to_owned(),
                problem: error.to_string(),
            })?,
        })
    }

    /// The roots, and each change of them.
    pub(super) fn anchors(&self) -> watch::Receiver<Arc<TrustAnchors>> {
        self.published.clone()
    }

    /// Why the file as it is now is not in force.
    pub(super) fn problem(&self) -> Option<String> {
        let fault = self.follower.fault()?;
        Some(with_consequence(&fault))
    }
}

fn with_consequence(fault: &str) -> String {
    format!("{fault}; the roots that it had last are in force")
}
