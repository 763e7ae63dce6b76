//! Pods from a directory of Kubernetes YAML.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use super::{KnownPod, PodDirectory, PodIndex};
use crate::account::ServiceAccount;
use ambit_model::{MeshRanges, Revision, Snapshot, TrustBundle, TrustDomain, Workload};
use ambit_source::{FileSource, FileSourceConfig, SourceError};

/// A directory of pods that is followed.
#[derive(Debug)]
pub struct FollowedFiles {
    _source: FileSource,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    pods: PodDirectory,
}

/// Reads the directory, and publishes its pods if all of its files are good.
///
/// # Errors
/// [`SourceError`] if the directory does not exist.
pub fn follow_files(
    directory: &Path,
    trust_domain: &TrustDomain,
    pods: PodDirectory,
) -> Result<FollowedFiles, SourceError> {
    let (source, snapshots) = FileSource::start(FileSourceConfig {
        directory: directory.to_owned(),
        trust_bundle: TrustBundle::without_aliases(trust_domain.clone()),
        // The CA uses no policies and no destinations.
        root_namespace: "istio-system".into(),
        ranges: MeshRanges::default(),
        revision: Revision::default(),
    })?;
    let mut followed = FollowedFiles {
        _source: source,
        snapshots,
        pods,
    };
    followed.take_over();
    Ok(followed)
}

impl FollowedFiles {
    /// Follows the directory while this is polled.
    pub async fn follow(mut self) {
        while self.snapshots.changed().await.is_ok() {
            self.take_over();
        }
    }

    fn take_over(&mut self) {
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        if snapshot.is_complete() {
            let pods: PodIndex = snapshot.workloads().iter().map(|pod| entry(pod)).collect();
            self.pods.replace(pods);
        }
    }
}

fn entry(pod: &Workload) -> KnownPod {
    KnownPod {
        name: pod.name.clone(),
        // The source makes up a uid from the pod's name if there is none. Only that one contains a
        // slash.
        uid: (!pod.uid.contains('/')).then(|| Arc::clone(&pod.uid)),
        node: pod.node.clone(),
        account: ServiceAccount::of(&pod.identity),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::account;
    use ambit_model::ObjectName;

    const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, uid: 5f6c}
spec: {nodeName: node-1, serviceAccountName: web}
---
apiVersion: v1
kind: Pod
metadata: {name: old, namespace: shop}
spec: {nodeName: node-1}
---
apiVersion: v1
kind: Pod
metadata: {name: done, namespace: shop}
spec: {nodeName: node-1, serviceAccountName: job}
status: {phase: Succeeded}
";

    fn open(directory: &Path) -> (FollowedFiles, PodDirectory) {
        let pods = PodDirectory::default();
        let domain = TrustDomain::new("cluster.local").unwrap();
        let files = follow_files(directory, &domain, pods.clone()).unwrap();
        (files, pods)
    }

    #[test]
    fn pods_that_have_not_ended_are_published() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("pods.yaml"), PODS).unwrap();
        let (_files, pods) = open(directory.path());
        let seen = pods.look(|pods| {
            let web = pods.pod(&ObjectName::new("shop", "web-0")).cloned();
            assert_eq!(web.unwrap().uid.as_deref(), Some("5f6c"));
            let old = pods.pod(&ObjectName::new("shop", "old")).cloned();
            assert_eq!(old.unwrap().uid, None);
            ["shop/web", "shop/default", "shop/job", "bank/web"]
                .map(|name| pods.runs_on("node-1", &account(name)))
        });
        assert_eq!(seen, Ok([true, true, false, false]));
    }

    #[test]
    fn a_directory_that_is_broken_from_the_start_publishes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("pods.yaml"), PODS).unwrap();
        std::fs::write(directory.path().join("broken.yaml"), "{").unwrap();
        let (_files, pods) = open(directory.path());
        assert!(pods.look(PodIndex::len).is_err());
    }
}
