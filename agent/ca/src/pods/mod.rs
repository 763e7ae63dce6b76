//! Which pods run on which nodes.

mod cluster;
mod files;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

pub use cluster::follow_cluster;
pub use files::{FollowedFiles, follow_files};

use crate::account::ServiceAccount;
use ambit_model::ObjectName;

/// The cluster's pods as last known. [`follow_cluster`] or [`follow_files`] keeps them up to date.
#[derive(Clone, Debug, Default)]
pub struct PodDirectory(Arc<RwLock<Option<PodIndex>>>);

/// The pods have not been read yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "it is not known yet which pods run where; try again in a moment, and check the log of the CA \
     if that does not help"
)]
pub struct PodsUnknown;

impl PodDirectory {
    /// Calls `look` with the pods.
    ///
    /// # Errors
    /// [`PodsUnknown`] until all pods have been read once.
    pub fn look<T>(&self, look: impl FnOnce(&PodIndex) -> T) -> Result<T, PodsUnknown> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().map(look).ok_or(PodsUnknown)
    }

    /// Replaces all pods.
    pub(super) fn replace(&self, pods: PodIndex) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(pods);
    }

    /// Changes the pods, if they are known.
    fn change(&self, change: impl FnOnce(&mut PodIndex)) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.as_mut().map(change);
    }
}

/// A pod that has not ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownPod {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.uid`; `None` if the source does not know it.
    pub uid: Option<Arc<str>>,
    /// `spec.nodeName`; `None` before it is scheduled.
    pub node: Option<Arc<str>>,
    /// `spec.serviceAccountName`.
    pub account: ServiceAccount,
}

/// Pods by name, and service accounts by node.
#[derive(Clone, Debug, Default)]
pub struct PodIndex {
    pods: HashMap<ObjectName, KnownPod>,
    /// How many pods of each account run on each node. No count is zero.
    nodes: HashMap<Arc<str>, HashMap<ServiceAccount, usize>>,
}

impl PodIndex {
    /// The pod of this name.
    pub fn pod(&self, name: &ObjectName) -> Option<&KnownPod> {
        self.pods.get(name)
    }

    /// Whether a pod of the account runs on the node.
    pub fn runs_on(&self, node: &str, account: &ServiceAccount) -> bool {
        let accounts = self.nodes.get(node);
        accounts.is_some_and(|accounts| accounts.contains_key(account))
    }

    /// The number of pods.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// Adds a pod, in place of an earlier one with the same name.
    pub fn put(&mut self, pod: KnownPod) {
        self.remove(&pod.name);
        if let Some(node) = &pod.node {
            let accounts = self.nodes.entry(Arc::clone(node)).or_default();
            *accounts.entry(pod.account.clone()).or_default() += 1;
        }
        self.pods.insert(pod.name.clone(), pod);
    }

    /// Removes the pod of this name.
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

impl FromIterator<KnownPod> for PodIndex {
    fn from_iter<T: IntoIterator<Item = KnownPod>>(pods: T) -> Self {
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
    fn no_pod_is_known_before_all_are() {
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
    fn an_account_is_on_a_node_while_one_of_its_pods_is() {
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
    fn a_successor_on_another_node_replaces_the_pod() {
        let mut pods = PodIndex::default();
        pods.put(pod("shop/web", "web-0", "node-1"));
        pods.put(pod("shop/web", "web-0", "node-2"));
        assert_eq!(pods.len(), 1);
        assert!(!pods.runs_on("node-1", &account("shop/web")));
        assert!(pods.runs_on("node-2", &account("shop/web")));
        pods.put(KnownPod {
            node: None,
            ..pod("shop/web", "web-0", "")
        });
        assert!(!pods.runs_on("node-2", &account("shop/web")));
    }
}
