//! Which pods name which network namespace.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ambit_datapath::netns::NetnsHandle;
use ambit_model::{NetnsReference, ObjectName, Workload};

/// The pods of this node by the network namespace that they name, opted in or not. A reference that
/// leads nowhere is no claim.
#[derive(Default)]
pub(super) struct Claims(BTreeMap<u64, Vec<Arc<Workload>>>);

impl Claims {
    /// The claims of these pods.
    pub(super) fn of<'a>(pods: impl Iterator<Item = &'a Arc<Workload>>) -> Self {
        let mut claims: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for pod in pods {
            if let Some(inode) = claimed(pod) {
                claims.entry(inode).or_default().push(Arc::clone(pod));
            }
        }
        Self(claims)
    }

    /// The pods that name the namespace with this inode.
    pub(super) fn on(&self, inode: u64) -> &[Arc<Workload>] {
        self.0.get(&inode).map_or(&[], Vec::as_slice)
    }

    /// The pods, apart from one, that name the namespace with this inode.
    pub(super) fn others(&self, inode: u64, than: &ObjectName) -> Vec<ObjectName> {
        let all = self.on(inode).iter().map(|pod| &pod.name);
        all.filter(|name| *name != than).cloned().collect()
    }
}

/// The inode of the network namespace that a pod's reference leads to. It is one namespace's alone
/// for as long as that lives.
pub(super) fn claimed(pod: &Workload) -> Option<u64> {
    let NetnsReference::Path(path) = pod.netns.as_ref()?;
    inode_at(path)
}

fn inode_at(path: &Path) -> Option<u64> {
    NetnsHandle::open(path).and_then(|netns| netns.inode()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ambit_model::testing::pod;

    fn naming(name: &str, path: &str) -> Arc<Workload> {
        Arc::new(Workload {
            netns: Some(NetnsReference::Path(path.into())),
            ..pod(name, &[])
        })
    }

    #[test]
    fn two_paths_to_one_namespace_are_one_claim_and_what_leads_nowhere_is_none() {
        let pods = [
            naming("a/one", "/proc/self/ns/net"),
            naming("b/two", "/proc/thread-self/ns/net"),
            naming("c/nowhere", "/nowhere"),
            naming("d/file", "/proc/self/status"),
            Arc::new(pod("e/silent", &[])),
        ];
        let claims = Claims::of(pods.iter());
        let inode = claimed(&pods[0]).expect("a namespace");
        assert_eq!(claims.on(inode), &pods[..2]);
        assert_eq!(claims.others(inode, &pods[0].name), [pods[1].name.clone()]);
        assert_eq!(claims.others(inode, &pods[2].name).len(), 2);
        assert!(claims.on(inode + 1).is_empty());
        assert_eq!(claimed(&pods[2]), None);
        assert_eq!(claimed(&pods[3]), None);
    }
}
