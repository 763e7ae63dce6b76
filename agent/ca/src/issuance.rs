//! The rules of who may have which identity. They do no I/O.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::account::ServiceAccount;
use crate::caller::{AuthenticatedCaller, BoundPod};
use crate::pods::{KnownPod, PodIndex};
use ambit_model::{ObjectName, TrustDomain, WorkloadIdentity};

/// The identity that a caller requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RequestedIdentity {
    /// The caller's own, as a sidecar requests it.
    Own,
    /// That of a pod on the caller's node, as a node's agent requests it.
    Of(WorkloadIdentity),
}

/// The rules of who may have which identity.
#[derive(Clone, Debug)]
pub struct IssuancePolicy {
    /// The trust domain of all identities.
    pub trust_domain: TrustDomain,
    /// The service accounts of node agents, which may request the identities of pods on their own
    /// nodes.
    pub node_accounts: BTreeSet<ServiceAccount>,
}

/// Why a caller may not have an identity.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IssuanceDenied {
    /// The caller's pod does not exist.
    #[error("there is no pod {pod}, which the caller's token is bound to")]
    NoSuchPod {
        /// The caller's pod.
        pod: ObjectName,
    },
    /// Another pod has taken the name of the caller's pod.
    #[error("the caller's token is bound to an earlier pod {pod}, which has ended")]
    Replaced {
        /// The caller's pod.
        pod: ObjectName,
    },
    /// The caller's pod runs under another account.
    #[error(
        "the pod {pod} runs under the service account {actual}, but the token is for {claimed}"
    )]
    OtherAccount {
        /// The caller's pod.
        pod: ObjectName,
        /// The token's account.
        claimed: ServiceAccount,
        /// The pod's account.
        actual: ServiceAccount,
    },
    /// The caller's pod runs on another node.
    #[error("the pod {pod} runs on the node {actual:?}, but the token names {claimed:?}")]
    OtherNode {
        /// The caller's pod.
        pod: ObjectName,
        /// The token's node.
        claimed: Arc<str>,
        /// The pod's node.
        actual: Arc<str>,
    },
    /// It is not known which node the caller's pod runs on.
    #[error(
        "it is not known which node the caller's pod {pod} runs on; it may not be scheduled yet"
    )]
    NodeUnknown {
        /// The caller's pod.
        pod: ObjectName,
    },
    /// The caller is not a node's agent.
    #[error(
        "{account} may request its own identity only; if it is a node's agent, start the CA with \
         --node-account {account}"
    )]
    NotANodeAccount {
        /// The caller's account.
        account: ServiceAccount,
    },
    /// The requested identity belongs to another trust domain.
    #[error("{identity} does not belong to this CA's trust domain {own}")]
    OtherTrustDomain {
        /// The requested identity.
        identity: WorkloadIdentity,
        /// The CA's trust domain.
        own: TrustDomain,
    },
    /// No pod with the identity runs on the caller's node.
    #[error("no pod of {identity} runs on the caller's node {node:?} at this time")]
    NotOnNode {
        /// The requested identity.
        identity: WorkloadIdentity,
        /// The caller's node.
        node: Arc<str>,
    },
    /// The account's name cannot be part of an identity.
    #[error("the service account {account} has a name that a SPIFFE ID cannot contain")]
    NoIdentity {
        /// The caller's account.
        account: ServiceAccount,
    },
}

impl IssuancePolicy {
    /// Decides whether the caller may have the requested identity, and returns it.
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

/// The caller's pod, if it is as the token says.
fn own_pod<'a>(
    caller: &AuthenticatedCaller,
    pods: &'a PodIndex,
) -> Result<&'a KnownPod, IssuanceDenied> {
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
