//! Network namespaces that are in the kernel and that no pod is served in: closed both ways until
//! the objects opt their pod out, or until they are gone.

use std::collections::BTreeSet;
use std::sync::Arc;

use ambit_common::NetnsCookie;

use super::claims::{Claims, claimed};
use super::kernel_faults::Table;
use super::reconcile::Reconciler;
use ambit_datapath::{EnrolError, Leftover, Life, PodOwner};
use ambit_model::{Membership, ObjectName, Snapshot, Workload};

/// A network namespace that is kept closed.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct KeptNetns {
    pub(super) netns: NetnsCookie,
    /// The pod that it was given to.
    pub(super) pod: Option<ObjectName>,
    /// Why it is closed.
    pub(super) reason: String,
}

/// What could not be done with a leftover. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum LeftoverError {
    /// They cannot be found.
    #[error("network namespaces that no pod is served in cannot be found: {0}")]
    Search(#[source] EnrolError),
    /// It is still there.
    #[error(
        "the network namespace with cookie {} could not be taken out of the kernel: {source}",
        .netns.0
    )]
    Removal {
        /// Which.
        netns: NetnsCookie,
        /// Why.
        source: EnrolError,
    },
    /// It is as an earlier agent left it.
    #[error("the network namespace with cookie {} could not be closed: {source}", .netns.0)]
    Closing {
        /// Which.
        netns: NetnsCookie,
        /// Why.
        source: EnrolError,
    },
}

/// What is to become of a leftover.
#[derive(PartialEq, Eq, Debug)]
enum Fate {
    /// It leaves the kernel.
    Leaves(&'static str),
    /// It stays closed, and this is why.
    Kept(String),
}

impl Reconciler {
    /// Closes what an earlier agent left and no pod is served in, and takes out of the kernel what
    /// is gone or opted out. What the configuration says counts once it is known in full.
    pub(super) fn tend_leftovers(&mut self, snapshot: &Snapshot) {
        let served: BTreeSet<NetnsCookie> = self.served_netns();
        let leftovers = match self.parts.enroller.leftovers(&served) {
            Ok(leftovers) => leftovers,
            Err(error) => {
                let error = LeftoverError::Search(error);
                return self.faults.note(Table::Pods, Err(error));
            }
        };
        let is_contested = |one: &Leftover| matches!(one.owner, Ok(None));
        let claims = if leftovers.iter().any(is_contested) {
            Claims::of(self.local(snapshot))
        } else {
            Claims::default()
        };
        let node = Arc::clone(&self.parts.node);
        self.kept.clear();
        let mut outcome = Ok(());
        for leftover in leftovers {
            let tended = match fate(snapshot, &node, &claims, &leftover) {
                Fate::Leaves(why) => self.remove_leftover(leftover.netns, why),
                Fate::Kept(reason) => self.keep_leftover(&leftover, reason),
            };
            outcome = outcome.and(tended);
        }
        self.faults.note(Table::Pods, outcome);
    }

    fn remove_leftover(
        &mut self,
        netns: NetnsCookie,
        why: &'static str,
    ) -> Result<(), LeftoverError> {
        let removed = self.parts.enroller.remove(netns);
        removed.map_err(|source| LeftoverError::Removal { netns, source })?;
        tracing::info!(
            netns = netns.0,
            why,
            "network namespace taken out of the kernel"
        );
        Ok(())
    }

    fn keep_leftover(&mut self, leftover: &Leftover, reason: String) -> Result<(), LeftoverError> {
        let netns = leftover.netns;
        let shut = self.parts.enroller.shut_leftover(netns);
        let owner = leftover.owner.as_ref().ok().and_then(Option::as_ref);
        self.kept.push(KeptNetns {
            netns,
            pod: owner.map(|owner| owner.pod.clone()),
            reason,
        });
        shut.map_err(|source| LeftoverError::Closing { netns, source })
    }
}

fn fate(snapshot: &Snapshot, node: &str, claims: &Claims, leftover: &Leftover) -> Fate {
    if leftover.life == Life::Gone {
        return Fate::Leaves("it is gone");
    }
    if !snapshot.is_complete() {
        return Fate::Kept("the configuration is not known in full".to_owned());
    }
    match &leftover.owner {
        Ok(Some(owner)) => owned_fate(snapshot, node, owner, leftover.life),
        Ok(None) => unowned_fate(snapshot, claims, leftover.life),
        Err(error) => Fate::Kept(format!("whose it is cannot be told: {error}")),
    }
}

fn owned_fate(snapshot: &Snapshot, node: &str, owner: &PodOwner, life: Life) -> Fate {
    let kept = |reason: &str| Fate::Kept(reason.to_owned());
    let Some(now) = snapshot.workload(&owner.pod) else {
        return gone_fate(life, "its pod's object is gone, and it is not");
    };
    if opts_out(snapshot, node, now) {
        return if is_about(now, owner, life) {
            Fate::Leaves("its pod is opted out")
        } else {
            gone_fate(life, "another pod has its pod's name, and it is not gone")
        };
    }
    match &now.membership {
        _ if now.node.as_deref() != Some(node) => {
            kept("its pod's object says that the pod is not on this node")
        }
        Membership::OptedIn => kept("its pod is not served in it: see the pod's own reason"),
        Membership::Never(never) => Fate::Kept(format!("its pod cannot be served: {never}")),
        Membership::NotOptedIn => {
            kept("its pod's Namespace object is gone, so nothing says that the pod is opted out")
        }
    }
}

/// The fate of what several pods named while it was given to none.
fn unowned_fate(snapshot: &Snapshot, claims: &Claims, life: Life) -> Fate {
    let claimants = match life {
        Life::Lives(inode) => claims.on(inode),
        Life::Gone | Life::Unattached | Life::Unknown => &[],
    };
    let is_out = |pod: &Arc<Workload>| snapshot.opts_out(pod);
    if !claimants.is_empty() && claimants.iter().all(is_out) {
        return Fate::Leaves("every pod that names it is opted out");
    }
    gone_fate(
        life,
        "several pods named it, and it was given to none of them",
    )
}

/// The fate of what no object speaks for. Where nothing is attached there is no telling when it is
/// gone, and little is kept closed.
fn gone_fate(life: Life, reason: &str) -> Fate {
    match life {
        Life::Gone | Life::Unattached => Fate::Leaves("no object speaks for it"),
        Life::Lives(_) | Life::Unknown => Fate::Kept(reason.to_owned()),
    }
}

/// Whether a pod's objects say that it is a pod of this node and not in the mesh.
pub(super) fn opts_out(snapshot: &Snapshot, node: &str, pod: &Workload) -> bool {
    pod.node.as_deref() == Some(node) && snapshot.opts_out(pod)
}

/// Whether an object is that of the pod which a namespace was given to: of the same uid, or naming
/// that namespace.
fn is_about(pod: &Workload, owner: &PodOwner, life: Life) -> bool {
    let names_it = || match life {
        Life::Lives(inode) => claimed(pod) == Some(inode),
        Life::Gone | Life::Unattached | Life::Unknown => false,
    };
    owner.is(pod) || names_it()
}

#[cfg(test)]
mod tests;
