//! What pods say about themselves, and when the agent believes it.
//!
//! A pod names its network namespace: several pods may name the same one, see [`Claims`].
//!
//! Annotations may say that a pod is Istio's:
//!
//! | annotation | what proves it | without the proof |
//! |---|---|---|
//! | `sidecar.istio.io/status` | a container `istio-proxy` in the pod's spec | the pod is served |
//! | `ambient.istio.io/redirection: enabled` | ztunnel's listeners, see [`ztunnel_in`] | the pod is served |
//!
//! Otherwise anyone who may annotate a pod could take it out of the mesh. A pod that is enrolled stays
//! Ambit's, whatever its annotations say later.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::pods::{LocalPod, Stage};
use super::reconcile::Reconciler;
use ambit_datapath::netns::NetnsHandle;
use ambit_datapath::{LocatedNetns, Ztunnel, ztunnel_in};
use ambit_model::{Fault, IstioClaim, NetnsReference, ObjectName, Workload};

/// The pods of this node by the network namespace that they name, opted in or not. A reference that
/// leads nowhere does not count.
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

/// The inode of the network namespace that a pod's reference leads to. It stays unique while the
/// namespace exists.
pub(super) fn claimed(pod: &Workload) -> Option<u64> {
    let NetnsReference::Path(path) = pod.netns.as_ref()?;
    inode_at(path)
}

fn inode_at(path: &Path) -> Option<u64> {
    NetnsHandle::open(path).and_then(|netns| netns.inode()).ok()
}

impl Reconciler {
    /// The faults of pods whose claims are ignored.
    pub(super) fn ignored_claims(&self) -> impl Iterator<Item = Fault> {
        let own = self.pods.values();
        own.filter(|pod| !matches!(pod.stage, Stage::LeftToIstio(_)))
            .filter_map(ignored_claim)
    }
}

/// The ztunnel that serves a pod, if the pod claims that one does.
pub(super) fn claimed_ztunnel(workload: &Workload, located: &LocatedNetns) -> Option<Ztunnel> {
    match workload.istio_claim {
        IstioClaim::None | IstioClaim::Sidecar => None,
        IstioClaim::Ambient => match ztunnel_in(located.netns(), &workload.uid) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(
                    pod = %workload.name, %error,
                    "it cannot be found out whether Istio's ztunnel listens in the pod, so Ambit serves it"
                );
                None
            }
        },
    }
}

fn ignored_claim(pod: &LocalPod) -> Option<Fault> {
    let ignored = match pod.workload.istio_claim {
        IstioClaim::None => return None,
        IstioClaim::Sidecar => {
            "The annotation sidecar.istio.io/status is ignored: the pod has no container \
             istio-proxy. Remove the annotation."
        }
        IstioClaim::Ambient => {
            "The annotation ambient.istio.io/redirection is ignored: when the pod was taken in, no \
             ztunnel listened in its network namespace on ports 15001, 15006 and 15008. Remove the \
             annotation, or take the pod out of Ambit's mesh."
        }
    };
    Some(Fault {
        subject: format!("Pod {}", pod.workload.name),
        message: ignored.to_owned(),
        last_good_in_force: true,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::pods::ClosedPod;
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

    #[test]
    fn a_claim_that_nothing_proves_is_a_fault() {
        let fault = |istio_claim| {
            ignored_claim(&LocalPod {
                workload: Arc::new(Workload {
                    istio_claim,
                    ..pod("a/web", &[])
                }),
                stage: Stage::Closed(Box::new(ClosedPod::due(None, Instant::now()))),
            })
        };
        assert_eq!(fault(IstioClaim::None), None);
        for (claim, annotation) in [
            (IstioClaim::Sidecar, "sidecar.istio.io/status is ignored"),
            (
                IstioClaim::Ambient,
                "ambient.istio.io/redirection is ignored",
            ),
        ] {
            let fault = fault(claim).expect("a fault");
            assert_eq!(fault.subject, "Pod a/web");
            assert!(fault.message.contains(annotation), "{}", fault.message);
        }
    }
}
