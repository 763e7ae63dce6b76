//! Leftovers: enrolled network namespaces in which no pod is served. They are closed in both directions
//! until the objects opt their pod out, or until they are gone.

use std::collections::BTreeSet;
use std::sync::Arc;

use ambit_common::NetnsCookie;

use super::claims::{Claims, claimed};
use super::kernel_faults::KernelTable;
use super::reconcile::Reconciler;
use ambit_datapath::{EnrolError, Leftover, NetnsLife, PodOwner};
use ambit_model::{Membership, ObjectName, Snapshot, Workload};

/// A network namespace that is kept closed.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct ClosedNetns {
    pub(super) netns: NetnsCookie,
    /// The pod that it was given to.
    pub(super) pod: Option<ObjectName>,
    /// Why it is closed.
    pub(super) reason: String,
}

/// What could not be done about a leftover. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum LeftoverError {
    /// They cannot be found.
    #[error("network namespaces that no pod is served in cannot be found: {0}")]
    Search(#[source] EnrolError),
    /// It could not be taken out of the kernel.
    #[error(
        "the network namespace with cookie {} could not be taken out of the kernel: {source}",
        .netns.0
    )]
    Removal {
        netns: NetnsCookie,
        source: EnrolError,
    },
    /// It could not be closed.
    #[error("the network namespace with cookie {} could not be closed: {source}", .netns.0)]
    Closing {
        netns: NetnsCookie,
        source: EnrolError,
    },
}

/// What to do about a leftover.
#[derive(PartialEq, Eq, Debug)]
enum LeftoverDecision {
    /// Take it out of the kernel.
    Remove(&'static str),
    /// Keep it closed, for this reason.
    KeepClosed(String),
}

impl Reconciler {
    /// Closes the namespaces that an earlier agent left and in which no pod is served, and takes out of
    /// the kernel those that are gone or opted out. The configuration counts only once it is complete.
    pub(super) fn tend_leftovers(&mut self, snapshot: &Snapshot) {
        let served: BTreeSet<NetnsCookie> = self.served_netns();
        let leftovers = match self.parts.enroller.leftovers(&served) {
            Ok(leftovers) => leftovers,
            Err(error) => {
                let error = LeftoverError::Search(error);
                return self.faults.note(KernelTable::Pods, Err(error));
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
            let tended = match decide(snapshot, &node, &claims, &leftover) {
                LeftoverDecision::Remove(why) => self.remove_leftover(leftover.netns, why),
                LeftoverDecision::KeepClosed(reason) => self.keep_leftover(&leftover, reason),
            };
            outcome = outcome.and(tended);
        }
        self.faults.note(KernelTable::Pods, outcome);
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
        let shut = self.parts.enroller.close_leftover(netns);
        let owner = leftover.owner.as_ref().ok().and_then(Option::as_ref);
        self.kept.push(ClosedNetns {
            netns,
            pod: owner.map(|owner| owner.pod.clone()),
            reason,
        });
        shut.map_err(|source| LeftoverError::Closing { netns, source })
    }
}

fn decide(
    snapshot: &Snapshot,
    node: &str,
    claims: &Claims,
    leftover: &Leftover,
) -> LeftoverDecision {
    if leftover.life == NetnsLife::Gone {
        return LeftoverDecision::Remove("it is gone");
    }
    if !snapshot.is_complete() {
        return LeftoverDecision::KeepClosed("the configuration is not known in full".to_owned());
    }
    match &leftover.owner {
        Ok(Some(owner)) => decide_owned(snapshot, node, owner, leftover.life),
        Ok(None) => decide_unowned(snapshot, claims, leftover.life),
        Err(error) => LeftoverDecision::KeepClosed(format!(
            "it is not known which pod it belongs to: {error}"
        )),
    }
}

fn decide_owned(
    snapshot: &Snapshot,
    node: &str,
    owner: &PodOwner,
    life: NetnsLife,
) -> LeftoverDecision {
    let kept = |reason: &str| LeftoverDecision::KeepClosed(reason.to_owned());
    let Some(now) = snapshot.workload(&owner.pod) else {
        return decide_without_object(life, "its pod's object is gone, and it is not");
    };
    if opts_out(snapshot, node, now) {
        return if is_about(now, owner, life) {
            LeftoverDecision::Remove("its pod is opted out")
        } else {
            decide_without_object(life, "another pod has its pod's name, and it is not gone")
        };
    }
    match &now.membership {
        _ if now.node.as_deref() != Some(node) => {
            kept("its pod's object says that the pod is not on this node")
        }
        Membership::OptedIn => kept("its pod is not served in it: see the pod's own reason"),
        Membership::Never(never) => {
            LeftoverDecision::KeepClosed(format!("its pod cannot be served: {never}"))
        }
        Membership::NotOptedIn => {
            kept("its pod's Namespace object is gone, so nothing says that the pod is opted out")
        }
    }
}

/// Decides about a namespace that several pods named and that none of them was given.
fn decide_unowned(snapshot: &Snapshot, claims: &Claims, life: NetnsLife) -> LeftoverDecision {
    let claimants = match life {
        NetnsLife::Alive(inode) => claims.on(inode),
        NetnsLife::Gone | NetnsLife::Unattached | NetnsLife::Unknown => &[],
    };
    let is_out = |pod: &Arc<Workload>| snapshot.opts_out(pod);
    if !claimants.is_empty() && claimants.iter().all(is_out) {
        return LeftoverDecision::Remove("every pod that names it is opted out");
    }
    decide_without_object(
        life,
        "several pods named it, and it was given to none of them",
    )
}

/// Decides about a namespace that no object speaks for. If nothing is attached to it, the agent cannot
/// notice its end, and it closes little.
fn decide_without_object(life: NetnsLife, reason: &str) -> LeftoverDecision {
    match life {
        NetnsLife::Gone | NetnsLife::Unattached => {
            LeftoverDecision::Remove("no object speaks for it")
        }
        NetnsLife::Alive(_) | NetnsLife::Unknown => LeftoverDecision::KeepClosed(reason.to_owned()),
    }
}

/// Whether a pod's objects say that it is on this node and not opted in.
pub(super) fn opts_out(snapshot: &Snapshot, node: &str, pod: &Workload) -> bool {
    pod.node.as_deref() == Some(node) && snapshot.opts_out(pod)
}

/// Whether an object describes the pod that a namespace was given to: it has the same uid, or names
/// that namespace.
fn is_about(pod: &Workload, owner: &PodOwner, life: NetnsLife) -> bool {
    let names_it = || match life {
        NetnsLife::Alive(inode) => claimed(pod) == Some(inode),
        NetnsLife::Gone | NetnsLife::Unattached | NetnsLife::Unknown => false,
    };
    owner.is(pod) || names_it()
}

#[cfg(test)]
mod tests;
