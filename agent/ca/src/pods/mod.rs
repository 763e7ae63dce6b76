//! Which pods run where.

mod cluster;
mod files;
mod index;

use std::sync::{Arc, PoisonError, RwLock};

pub use cluster::follow_cluster;
pub use files::{FollowedFiles, follow_files};
pub use index::{PodEntry, PodIndex};

/// The pods of the cluster, as they are known at the time. Kept by [`follow_cluster`] or
/// [`follow_files`].
#[derive(Clone, Debug, Default)]
pub struct PodDirectory(Arc<RwLock<Option<PodIndex>>>);

/// The pods are not known yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "it is not known yet which pods run where; try again in a moment, and see the log of the CA \
     if that does not help"
)]
pub struct PodsUnknown;

impl PodDirectory {
    /// Looks at the pods.
    ///
    /// # Errors
    /// [`PodsUnknown`] until all of them have been read once.
    pub fn look<T>(&self, look: impl FnOnce(&PodIndex) -> T) -> Result<T, PodsUnknown> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().map(look).ok_or(PodsUnknown)
    }

    /// Has these pods and no others from now on.
    pub(super) fn replace(&self, pods: PodIndex) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(pods);
    }

    /// Changes the pods, where they are known.
    fn change(&self, change: impl FnOnce(&mut PodIndex)) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.as_mut().map(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::pod;

    #[test]
    fn nothing_is_known_until_all_is_known() {
        let pods = PodDirectory::default();
        let count = |pods: &PodDirectory| pods.look(PodIndex::len);
        assert_eq!(count(&pods), Err(PodsUnknown));
        pods.change(|pods| pods.put(pod("shop/web", "web-0", "node-1")));
        assert_eq!(count(&pods), Err(PodsUnknown));
        pods.replace(PodIndex::default());
        assert_eq!(count(&pods), Ok(0));
        pods.change(|pods| pods.put(pod("shop/web", "web-0", "node-1")));
        assert_eq!(count(&pods), Ok(1));
    }
}
