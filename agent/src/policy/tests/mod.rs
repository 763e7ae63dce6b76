//! What policies mean, by name: the cases of the specification, with a denial beside each
//! permission, and a property that holds evaluator and kernel tables against each other.

mod agreement;
mod identity;
mod not_enforced;
mod peer_authentication;
mod scope;

use std::collections::BTreeMap;
use std::sync::Arc;

use ambit_common::Reason;
use serde_json::Value;

use super::{Attributes, Decision, PolicyIndex, WorkloadPolicies};
use crate::model::testing::{parts, pod};
use crate::model::{
    ObjectName, Origin, PolicyKind, PolicyObject, Snapshot, TrustDomain, Workload, WorkloadIdentity,
};

const ROOT: &str = "istio-system";

/// A mesh whose only workload is `prod/web`, with the label `app: web`, at 10.0.0.1 and fd00::1.
#[derive(Debug)]
struct Mesh {
    policies: Vec<PolicyObject>,
}

impl Mesh {
    fn new() -> Self {
        Self {
            policies: Vec::new(),
        }
    }

    fn with(mut self, kind: PolicyKind, name: &str, spec: Value) -> Self {
        let (namespace, name) = name.split_once('/').expect("namespace/name");
        self.policies.push(PolicyObject {
            kind,
            name: ObjectName::new(namespace, name),
            annotations: BTreeMap::new(),
            created: None,
            spec,
            origin: Origin::Kubernetes,
        });
        self
    }

    /// With an AuthorizationPolicy.
    fn authorize(self, name: &str, spec: Value) -> Self {
        self.with(PolicyKind::AuthorizationPolicy, name, spec)
    }

    /// With a PeerAuthentication.
    fn authenticate(self, name: &str, spec: Value) -> Self {
        self.with(PolicyKind::PeerAuthentication, name, spec)
    }

    fn index(self) -> PolicyIndex {
        let snapshot = Snapshot::new(crate::model::SnapshotParts {
            workloads: vec![web()],
            policies: self.policies,
            ..parts()
        });
        PolicyIndex::build(&snapshot)
    }

    fn policies(self) -> Arc<WorkloadPolicies> {
        self.index().for_workload(&web())
    }

    /// Whether a caller is let in on port 8080.
    fn admits(self, caller: Caller) -> bool {
        self.policies().admits(caller, 8080)
    }
}

impl WorkloadPolicies {
    /// By the evaluator; the kernel's tables have to say the same.
    fn admits(&self, caller: Caller, port: u16) -> bool {
        let connection = caller.calls(port);
        let evaluated = self.evaluate(&connection);
        agreement::assert_agreement(self, &connection);
        matches!(evaluated, Decision::Allow(_))
    }

    fn reason(&self, caller: Caller) -> Option<Reason> {
        match self.evaluate(&caller.calls(8080)) {
            Decision::Allow(_) => None,
            Decision::Deny(denial) => Some(denial.reason),
        }
    }
}

/// Who calls `prod/web`.
#[derive(Clone, Copy, Debug)]
enum Caller {
    /// Nobody that is known, from 10.9.0.1.
    Plaintext,
    /// `namespace/service account` of `cluster.local`.
    Peer(&'static str),
    /// Trust domain, namespace and service account.
    Foreign(&'static str, &'static str),
}

impl Caller {
    fn calls(self, port: u16) -> Attributes {
        let identity = |trust_domain: &str, account: &str| {
            let trust_domain = TrustDomain::new(trust_domain).expect("valid");
            let (namespace, account) = account.split_once('/').expect("namespace/account");
            Some(WorkloadIdentity::new(trust_domain, namespace, account).expect("valid"))
        };
        Attributes {
            identity: match self {
                Self::Plaintext => None,
                Self::Peer(account) => identity("cluster.local", account),
                Self::Foreign(trust_domain, account) => identity(trust_domain, account),
            },
            source: "10.9.0.1".parse().expect("valid"),
            destination: ([10, 0, 0, 1], port).into(),
        }
    }
}

fn web() -> Workload {
    pod("prod/web", &["10.0.0.1", "fd00::1"])
}
