//! Pods from the API server.

use futures_util::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};

use super::{KnownPod, PodDirectory, PodIndex};
use crate::account::ServiceAccount;
use ambit_model::ObjectName;

/// Follows the cluster's pods while this is polled. While the API server cannot be reached, the last
/// known state is used.
pub async fn follow_cluster(client: kube::Client, pods: PodDirectory) {
    let events = watch(Api::<Pod>::all(client), watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut follower = Follower {
        pods,
        listed: PodIndex::default(),
    };
    loop {
        match events.try_next().await {
            Ok(Some(event)) => follower.take(event),
            Ok(None) => return,
            Err(error) => tracing::warn!(
                %error,
                "the pods cannot be followed, and their last known state is used; check that the API \
                 server is reachable, and that this account may list and watch pods"
            ),
        }
    }
}

struct Follower {
    pods: PodDirectory,
    /// What a listing under way has brought so far.
    listed: PodIndex,
}

impl Follower {
    fn take(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.listed = PodIndex::default(),
            Event::InitApply(pod) => put(&mut self.listed, &pod),
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                tracing::info!(pods = listed.len(), "the pods of the cluster are known");
                self.pods.replace(listed);
            }
            Event::Apply(pod) => self.pods.change(|pods| put(pods, &pod)),
            Event::Delete(pod) => {
                if let Some(name) = name(&pod) {
                    self.pods.change(|pods| pods.remove(&name));
                }
            }
        }
    }
}

/// Adds a pod, or removes it if it has ended.
fn put(pods: &mut PodIndex, pod: &Pod) {
    match (entry(pod), name(pod)) {
        (Some(entry), _) => pods.put(entry),
        (None, Some(name)) => pods.remove(&name),
        (None, None) => {}
    }
}

fn name(pod: &Pod) -> Option<ObjectName> {
    let metadata = &pod.metadata;
    let (namespace, name) = (metadata.namespace.as_deref()?, metadata.name.as_deref()?);
    Some(ObjectName::new(namespace, name))
}

/// The pod's entry; `None` if it has ended, or its account is not a valid name.
fn entry(pod: &Pod) -> Option<KnownPod> {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let (name, spec) = (name(pod)?, pod.spec.as_ref()?);
    let account = spec.service_account_name.as_deref();
    let account = account.filter(|text| !text.is_empty()).unwrap_or("default");
    Some(KnownPod {
        account: ServiceAccount::new(&name.namespace, account)?,
        uid: Some(pod.metadata.uid.as_deref().unwrap_or_default().into()),
        node: spec
            .node_name
            .as_deref()
            .filter(|node| !node.is_empty())
            .map(Into::into),
        name,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tests::account;

    fn pod(name: &str, node: &str, phase: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}")},
            "spec": {"containers": [], "nodeName": node, "serviceAccountName": "web"},
            "status": {"phase": phase},
        }))
        .expect("a pod")
    }

    fn on_node_1(pods: &PodDirectory) -> Option<bool> {
        pods.look(|pods| pods.runs_on("node-1", &account("shop/web")))
            .ok()
    }

    #[test]
    fn events_change_the_pods() {
        let pods = PodDirectory::default();
        let mut follower = Follower {
            pods: pods.clone(),
            listed: PodIndex::default(),
        };
        follower.take(Event::Init);
        follower.take(Event::InitApply(pod("web-0", "node-1", "Running")));
        assert_eq!(on_node_1(&pods), None);
        follower.take(Event::InitDone);
        assert_eq!(on_node_1(&pods), Some(true));
        follower.take(Event::Apply(pod("web-0", "node-1", "Succeeded")));
        assert_eq!(on_node_1(&pods), Some(false));
        follower.take(Event::Apply(pod("web-1", "node-1", "Pending")));
        assert_eq!(on_node_1(&pods), Some(true));
        follower.take(Event::Delete(pod("web-1", "node-1", "Running")));
        assert_eq!(on_node_1(&pods), Some(false));
        // A pod that is missing from a later listing was deleted while the watch was down.
        follower.take(Event::Apply(pod("web-2", "node-1", "Running")));
        follower.take(Event::Init);
        assert_eq!(on_node_1(&pods), Some(true));
        follower.take(Event::InitDone);
        assert_eq!(on_node_1(&pods), Some(false));
    }

    #[test]
    fn a_pod_without_a_node_has_no_node() {
        let mut unscheduled = pod("web-0", "", "Pending");
        assert_eq!(entry(&unscheduled).expect("a pod").node, None);
        unscheduled.spec = None;
        assert_eq!(entry(&unscheduled), None);
    }
}
