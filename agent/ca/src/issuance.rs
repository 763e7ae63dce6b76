//! Which identity a caller may have. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::account::ServiceAccount;
use crate::caller::{AuthenticatedCaller, BoundPod};
use crate::pods::{PodEntry, PodIndex};
use ambit_model::{ObjectName, TrustDomain, WorkloadIdentity};

/// The identity that a caller asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RequestedIdentity {
    /// Its own, as a sidecar does.
    Own,
    /// That of a pod on its node, as a node's agent does.
    Of(WorkloadIdentity),
}

/// Who may have what.
#[derive(Clone, Debug)]
pub struct IssuancePolicy {
    /// The domain of all identities.
    pub trust_domain: TrustDomain,
    /// The accounts of node agents: they may ask for the identities of pods on their own nodes.
    pub node_accounts: BTreeSet<ServiceAccount>,
}

/// Why a caller may not have an identity.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IssuanceDenied {
    /// The caller's pod is not there.
    #[error("there is no pod {pod}, which the caller's token is bound to")]
    NoSuchPod {
        /// The caller's pod.
        pod: ObjectName,
    },
    /// Another pod has the name of the caller's.
    #[error("the pod {pod} is another one than the caller's token is bound to, which has ended")]
    Replaced {
        /// The caller's pod.
        pod: ObjectName,
    },
    /// The pod runs under another account.
    #[error("the pod {pod} runs under the service account {actual}, and the token is of {claimed}")]
    OtherAccount {
        /// The caller's pod.
        pod: ObjectName,
        /// The token's.
        claimed: ServiceAccount,
        /// The pod's.
        actual: ServiceAccount,
    },
    /// The pod runs on another node.
    #[error("the pod {pod} runs on the node {actual:?}, and the token is of {claimed:?}")]
    OtherNode {
        /// The caller's pod.
        pod: ObjectName,
        /// The token's.
        claimed: Arc<str>,
        /// The pod's.
        actual: Arc<str>,
    },
    /// The node of a node's agent is not known.
    #[error("it is not known which node the caller's pod {pod} is on; it may not be scheduled yet")]
    NodeUnknown {
        /// The caller's pod.
        pod: ObjectName,
    },
    /// Not an account of node agents.
    #[error(
        "{account} may ask for its own identity only; if it is a node's agent, start the CA with \
         --node-account {account}"
    )]
    NotANodeAccount {
        /// The caller's.
        account: ServiceAccount,
    },
    /// Of another trust domain.
    #[error("{identity} is not of this CA's trust domain, {own}")]
    OtherTrustDomain {
        /// What was asked for.
        identity: WorkloadIdentity,
        /// The CA's.
        own: TrustDomain,
    },
    /// No pod of the identity runs on the caller's node.
    #[error("no pod of {identity} runs on the caller's node {node:?} at this time")]
    NotOnNode {
        /// What was asked for.
        identity: WorkloadIdentity,
        /// The caller's.
        node: Arc<str>,
    },
    /// The account's name does not fit into an identity.
    #[error("the service account {account} has a name that no SPIFFE ID can have")]
    NoIdentity {
        /// The caller's.
        account: ServiceAccount,
    },
}

impl IssuancePolicy {
    /// The identity that the caller gets.
    ///
    /// # Errors
    /// [`IssuanceDenied`].
    pub fn authorize(
        &self,
        caller: &AuthenticatedCaller,
        asked: &RequestedIdentity,
        pods: &PodIndex,
    ) -> Result<WorkloadIdentity, IssuanceDenied> {
        let pod = own_pod(caller, pods)?;
        let identity = match asked {
            RequestedIdentity::Own => return self.own(caller),
            RequestedIdentity::Of(identity) => identity,
        };
        if !self.node_accounts.contains(&caller.account) {
            let account = caller.account.clone();
            return Err(IssuanceDenied::NotANodeAccount { account });
        }
        if *identity.trust_domain() != self.trust_domain {
            return Err(IssuanceDenied::OtherTrustDomain {
                identity: identity.clone(),
                own: self.trust_domain.clone(),
            });
        }
        let node = caller.node.as_ref().or(pod.node.as_ref());
        let node = node.ok_or_else(|| IssuanceDenied::NodeUnknown {
            pod: caller.pod.name.clone(),
        })?;
        if !pods.runs_on(node, &ServiceAccount::of(identity)) {
            return Err(IssuanceDenied::NotOnNode {
                identity: identity.clone(),
                node: Arc::clone(node),
            });
        }
        Ok(identity.clone())
    }

    fn own(&self, caller: &AuthenticatedCaller) -> Result<WorkloadIdentity, IssuanceDenied> {
        let identity = caller.account.identity(&self.trust_domain);
        identity.map_err(|_| IssuanceDenied::NoIdentity {
            account: caller.account.clone(),
        })
    }
}

/// The pod that the caller is, where it is what the token says.
fn own_pod<'a>(
    caller: &AuthenticatedCaller,
    pods: &'a PodIndex,
) -> Result<&'a PodEntry, IssuanceDenied> {
    let BoundPod { name, uid } = &caller.pod;
    let pod = || name.clone();
    let found = pods
        .pod(name)
        .ok_or_else(|| IssuanceDenied::NoSuchPod { pod: pod() })?;
    if found.uid.as_ref().is_some_and(|known| known != uid) {
        return Err(IssuanceDenied::Replaced { pod: pod() });
    }
    if found.account != caller.account {
        return Err(IssuanceDenied::OtherAccount {
            pod: pod(),
            claimed: caller.account.clone(),
            actual: found.account.clone(),
        });
    }
    match (&caller.node, &found.node) {
        (Some(claimed), Some(actual)) if claimed != actual => Err(IssuanceDenied::OtherNode {
            pod: pod(),
            claimed: Arc::clone(claimed),
            actual: Arc::clone(actual),
        }),
        (Some(_), None) => Err(IssuanceDenied::NodeUnknown { pod: pod() }),
        _ => Ok(found),
    }
}
