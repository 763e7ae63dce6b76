//! Who calls: the identity and the address of a caller by its name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::answer::ExplainedCaller;
use super::error::QuestionError;
use super::near::near;
use super::question::{AccessQuestion, CallerName, CallerTransport};
use ambit_model::{Snapshot, Workload, WorkloadIdentity};

/// A caller, and what was assumed of it.
#[derive(Debug)]
pub(super) struct ResolvedCaller {
    identity: Option<WorkloadIdentity>,
    addresses: Vec<IpAddr>,
    pod: Option<Arc<Workload>>,
    pub(super) assumptions: Vec<String>,
}

impl ResolvedCaller {
    pub(super) fn resolve(
        question: &AccessQuestion,
        snapshot: &Snapshot,
    ) -> Result<Self, QuestionError> {
        let mut caller = match &question.from {
            CallerName::Address(address) => Self::of_address(*address, question, snapshot),
            CallerName::Identity(identity) => Self::of_identity(identity.clone(), snapshot),
            CallerName::Account(name) => {
                let domain = snapshot.trust_domain().clone();
                let identity = WorkloadIdentity::new(domain, &name.namespace, &name.name);
                let known = || snapshot.workloads().iter().map(|workload| &workload.name);
                let identity = identity.map_err(|_| QuestionError::Unknown {
                    kind: "service account",
                    name: name.clone(),
                    near: near(name, known()),
                })?;
                Self::of_identity(identity, snapshot)
            }
            CallerName::Pod(name) => {
                let known = || snapshot.workloads().iter().map(|workload| &workload.name);
                let pod = snapshot
                    .workload(name)
                    .ok_or_else(|| QuestionError::Unknown {
                        kind: "pod",
                        name: name.clone(),
                        near: near(name, known()),
                    })?;
                Self::of_pod(pod)
            }
        };
        if question.transport == CallerTransport::Plaintext {
            caller.identity = None;
        }
        if let Some(address) = question.from_address {
            caller.addresses = vec![address.to_canonical()];
        }
        Ok(caller)
    }

    fn of_pod(pod: &Arc<Workload>) -> Self {
        let mut assumptions = Vec::new();
        let identity = pod.is_opted_in().then(|| pod.identity.clone());
        if identity.is_none() {
            let name = &pod.name;
            assumptions.push(format!(
                "the pod {name} is not enrolled and calls in plaintext"
            ));
        }
        Self {
            identity,
            addresses: pod.mesh_addresses().collect(),
            pod: Some(Arc::clone(pod)),
            assumptions,
        }
    }

    /// An address has no identity: only the pod that has it may have one.
    fn of_address(address: IpAddr, question: &AccessQuestion, snapshot: &Snapshot) -> Self {
        let address = address.to_canonical();
        let mut caller = match snapshot.by_address(address) {
            Some(pod) => Self::of_pod(pod),
            None => Self {
                identity: None,
                addresses: Vec::new(),
                pod: None,
                assumptions: Vec::new(),
            },
        };
        if let (Some(pod), Some(identity), CallerTransport::Tunnel) =
            (&caller.pod, &caller.identity, question.transport)
        {
            caller.assumptions.push(format!(
                "{address} is the enrolled pod {}: it is assumed to call with its identity, \
                 {identity} (--plaintext for none)",
                pod.name
            ));
        }
        caller.addresses = vec![address];
        caller
    }

    /// The first pod that has the identity lends its address.
    fn of_identity(identity: WorkloadIdentity, snapshot: &Snapshot) -> Self {
        let mut pods = snapshot.workloads().iter();
        let pod = pods.find(|pod| pod.is_opted_in() && pod.identity == identity);
        Self {
            identity: Some(identity),
            addresses: pod.map_or_else(Vec::new, |pod| pod.mesh_addresses().collect()),
            pod: pod.map(Arc::clone),
            assumptions: Vec::new(),
        }
    }

    /// Its address of the destination's family; `None` where it is not known.
    ///
    /// # Errors
    /// Where all that are known are of the other.
    pub(super) fn address(&self, destination: IpAddr) -> Result<Option<IpAddr>, QuestionError> {
        let same = |own: &&IpAddr| own.is_ipv4() == destination.is_ipv4();
        match (self.addresses.iter().find(same), self.addresses.first()) {
            (Some(own), _) => Ok(Some(*own)),
            (None, None) => Ok(None),
            (None, Some(other)) => Err(QuestionError::Family {
                from: *other,
                to: destination,
            }),
        }
    }

    pub(super) fn identity(&self) -> Option<&WorkloadIdentity> {
        self.identity.as_ref()
    }

    pub(super) fn shown(&self, address: Option<IpAddr>) -> ExplainedCaller {
        ExplainedCaller {
            identity: self.identity.clone(),
            address,
            pod: self.pod.as_ref().map(|pod| pod.name.clone()),
        }
    }
}

/// What stands for an address that is not known.
pub(super) const fn no_address(destination: IpAddr) -> IpAddr {
    match destination {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}
