//! Which pods run where.

mod cluster;
mod files;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

pub use cluster::follow_cluster;
pub use files::{FollowedFiles, follow_files};

use crate::account::ServiceAccount;
use ambit_model::ObjectName;

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

/// A pod that has not ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodEntry {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.uid`; `None` where its source does not say.
    pub uid: Option<Arc<str>>,
    /// `spec.nodeName`; `None` before it is scheduled.
    pub node: Option<Arc<str>>,
    /// `spec.serviceAccountName`.
    pub account: ServiceAccount,
}

/// Pods by name, and service accounts by node.
#[derive(Clone, Debug, Default)]
pub struct PodIndex {
    pods: HashMap<ObjectName, PodEntry>,
    /// How many pods of each account a node runs, none of them zero.
    nodes: HashMap<Arc<str>, HashMap<ServiceAccount, usize>>,
}

impl PodIndex {
    /// The pod of this name.
    pub fn pod(&self, name: &ObjectName) -> Option<&PodEntry> {
        self.pods.get(name)
    }

    /// Whether a pod of the account runs on the node.
    pub fn runs_on(&self, node: &str, account: &ServiceAccount) -> bool {
        let accounts = self.nodes.get(node);
        accounts.is_some_and(|accounts| accounts.contains_key(account))
    }

    /// How many pods there are.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// Takes a pod in, instead of the one of its name.
    pub fn put(&mut self, pod: PodEntry) {
        self.remove(&pod.name);
        if let Some(node) = &pod.node {
            let accounts = self.nodes.entry(Arc::clone(node)).or_default();
            *accounts.entry(pod.account.clone()).or_default() += 1;
        }
        self.pods.insert(pod.name.clone(), pod);
    }

    /// Takes the pod of this name out.
    pub fn remove(&mut self, name: &ObjectName) {
        let Some(pod) = self.pods.remove(name) else {
            return;
        };
        let Some(node) = pod.node else { return };
        let Some(accounts) = self.nodes.get_mut(&node) else {
            return;
        };
        if let Some(count) = accounts.get_mut(&pod.account) {
            *count -= 1;
            if *count == 0 {
                accounts.remove(&pod.account);
            }
        }
        if accounts.is_empty() {
            self.nodes.remove(&node);
        }
    }
}

impl FromIterator<PodEntry> for PodIndex {
    fn from_iter<T: IntoIterator<Item = PodEntry>>(pods: T) -> Self {
        let mut index = Self::default();
        pods.into_iter().for_each(|pod| index.put(pod));
        index
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::{account, pod};

    use super::*;

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

    #[test]
    fn an_account_is_on_a_node_as_long_as_one_of_its_pods_is() {
        let (web, other) = (account("shop/web"), account("bank/web"));
        let mut pods = PodIndex::default();
        pods.put(pod("shop/web", "web-0", "node-1"));
        pods.put(pod("shop/web", "web-1", "node-1"));
        assert!(pods.runs_on("node-1", &web));
        assert!(!pods.runs_on("node-1", &other));
        assert!(!pods.runs_on("node-2", &web));
        pods.remove(&ObjectName::new("shop", "web-0"));
        pods.remove(&ObjectName::new("shop", "web-0"));
        assert!(pods.runs_on("node-1", &web));
        pods.remove(&ObjectName::new("shop", "web-1"));
        assert!(!pods.runs_on("node-1", &web));
        assert!(pods.is_empty() && pods.nodes.is_empty());
    }

    #[test]
    fn a_successor_on_another_node_takes_the_place_of_the_pod() {
        let mut pods = PodIndex::default();
        pods.put(pod("shop/web", "web-0", "node-1"));
        pods.put(pod("shop/web", "web-0", "node-2"));
        assert_eq!(pods.len(), 1);
        assert!(!pods.runs_on("node-1", &account("shop/web")));
        assert!(pods.runs_on("node-2", &account("shop/web")));
        pods.put(PodEntry {
            node: None,
            ..pod("shop/web", "web-0", "")
        });
        assert!(!pods.runs_on("node-2", &account("shop/web")));
    }
}
