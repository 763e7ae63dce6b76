//! Pods whose annotations say that they are Istio's.
//!
//! | annotation | what proves it | without the proof |
//! |---|---|---|
//! | `sidecar.istio.io/status` | a container `istio-proxy` in the pod's spec | the pod is served |
//! | `ambient.istio.io/redirection: enabled` | ztunnel's listeners, see [`ztunnel_in`] | the pod is served |
//!
//! Whoever may annotate a pod could otherwise take it out of the mesh. A pod that is in the kernel
//! stays Ambit's, whatever its annotations say later.

use super::pods::{LocalPod, Stage};
use super::reconcile::Reconciler;
use ambit_datapath::{LocatedNetns, Ztunnel, ztunnel_in};
use ambit_model::{Fault, IstioClaim, Workload};

impl Reconciler {
    /// What is wrong with the claims of pods that are not left to Istio.
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
                    "whether Istio's ztunnel listens in the pod cannot be told: it is taken in"
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
    use std::sync::Arc;
    use std::time::Instant;

    use super::super::pods::ClosedPod;
    use super::*;
    use ambit_model::testing::pod;

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
