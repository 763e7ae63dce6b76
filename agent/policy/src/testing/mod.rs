//! For tests: a small mesh, random policies, and checks that evaluator and tables agree.

#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::new_without_default,
    clippy::unwrap_used,
    reason = "tests call them"
)]

mod agreement;
pub mod generate;

pub use agreement::{assert_agreement, assert_judged_alike, assert_no_contradiction};
pub use generate::{connection, policies};

use std::collections::BTreeMap;
use std::sync::Arc;

use ambit_common::Reason;
use serde_json::{Value, json};

use super::{
    Approvals, ConnectionAttributes, ConnectionVerdict, MeshView, PolicyCondition, PolicyIndex,
    RequestAttributes, WorkloadPolicies,
};
use ambit_model::testing::{parts, pod, service};
use ambit_model::{
    AppProtocol, ObjectName, ObjectOrigin, PolicyKind, PolicyObject, Revision, Service, Snapshot,
    TargetPort, TrustBundle, TrustDomain, Workload, WorkloadIdentity,
};

pub const ROOT: &str = "istio-system";

/// A mesh whose only workload is `prod/web`, with the label `app: web`, at 10.0.0.1 and fd00::1. Its
/// Service `prod/web` has the port 80, which is the pod's 8080.
#[derive(Debug)]
pub struct TestMesh {
    pub policies: Vec<PolicyObject>,
    pub protocol: AppProtocol,
    pub others: Vec<Service>,
    pub trust_bundle: TrustBundle,
    pub revision: Revision,
}

impl Default for TestMesh {
    fn default() -> Self {
        Self::new()
    }
}

impl TestMesh {
    pub fn new() -> Self {
        Self {
            policies: Vec::new(),
            protocol: AppProtocol::Opaque,
            others: Vec::new(),
            trust_bundle: parts().trust_bundle,
            revision: Revision::default(),
        }
    }

    /// A mesh whose port 8080 carries HTTP.
    pub fn http() -> Self {
        Self {
            protocol: AppProtocol::Http,
            ..Self::new()
        }
    }

    pub fn with(mut self, kind: PolicyKind, name: &str, spec: Value) -> Self {
        let (namespace, name) = name.split_once('/').expect("namespace/name");
        self.policies.push(PolicyObject {
            kind,
            name: ObjectName::new(namespace, name),
            revision: None,
            annotations: BTreeMap::new(),
            created: None,
            spec,
            origin: ObjectOrigin::Kubernetes,
        });
        self
    }

    /// Makes the last policy a dry run.
    pub fn as_dry_run(self) -> Self {
        self.dry_run("true")
    }

    /// Sets `istio.io/dry-run` on the last policy.
    pub fn dry_run(mut self, value: &str) -> Self {
        let policy = self.policies.last_mut().expect("a policy");
        let annotation = ("istio.io/dry-run".to_owned(), value.to_owned());
        policy.annotations.extend([annotation]);
        self
    }

    /// Adds a Service.
    pub fn serve(mut self, service: Service) -> Self {
        self.others.push(service);
        self
    }

    /// Sets the trust domains, the mesh's own first.
    pub fn trusting(mut self, domains: &[&str]) -> Self {
        let mut domains = domains
            .iter()
            .map(|text| TrustDomain::new(text).expect("valid"));
        self.trust_bundle = TrustBundle {
            own: domains.next().expect("the own one"),
            aliases: domains.collect(),
        };
        self
    }

    /// Adds an AuthorizationPolicy.
    pub fn authorize(self, name: &str, spec: Value) -> Self {
        self.with(PolicyKind::AuthorizationPolicy, name, spec)
    }

    /// Adds a PeerAuthentication.
    pub fn authenticate(self, name: &str, spec: Value) -> Self {
        self.with(PolicyKind::PeerAuthentication, name, spec)
    }

    pub fn index(self) -> PolicyIndex {
        let mut service: Service = service("prod/web", &[], 80, TargetPort::Number(8080));
        service.ports[0].protocol = self.protocol;
        let snapshot = Snapshot::new(ambit_model::SnapshotParts {
            workloads: vec![web()],
            services: [vec![service], self.others].concat(),
            policies: self.policies,
            trust_bundle: self.trust_bundle,
            revision: self.revision,
            ..parts()
        });
        PolicyIndex::build(&Arc::new(snapshot))
    }

    pub fn view(self) -> MeshView {
        let policies = self.index();
        MeshView {
            snapshot: Arc::clone(&policies.snapshot),
            policies,
        }
    }

    /// The condition of the policy `prod/policy`.
    pub fn condition(self) -> PolicyCondition {
        let mut shown = self.index().conditions().into_iter();
        let own = shown.find(|shown| shown.name.to_string() == "prod/policy");
        own.expect("shown")
    }

    pub fn policies(self) -> Arc<WorkloadPolicies> {
        self.index().for_workload(&web())
    }

    /// Whether a caller is allowed on port 8080.
    pub fn admits(self, caller: TestCaller) -> bool {
        self.policies().admits(caller, 8080)
    }
}

impl WorkloadPolicies {
    /// Whether a connection that is not HTTP is allowed. Asserts that the kernel's tables agree.
    pub fn admits(&self, caller: TestCaller, port: u16) -> bool {
        let connection = caller.calls(port);
        assert_agreement(self, &connection);
        self.judge_opaque(&connection, &Approvals::default())
            .is_ok()
    }

    /// Whether a request is allowed. Asserts that the verdict on its connection does not contradict it.
    pub fn admits_request(&self, caller: TestCaller, request: &RequestAttributes) -> bool {
        let connection = caller.calls(8080);
        assert_agreement(self, &connection);
        assert_no_contradiction(self, &connection, std::slice::from_ref(request));
        self.judge_request(&connection, request, &Approvals::default())
            .is_ok()
    }

    pub fn reason(&self, caller: TestCaller) -> Option<Reason> {
        match self.judge_connection(&caller.calls(8080)) {
            ConnectionVerdict::Allow(_) | ConnectionVerdict::Ask => None,
            ConnectionVerdict::Deny(denial) => Some(denial.reason),
        }
    }
}

/// A caller of `prod/web`.
#[derive(Clone, Copy, Debug)]
pub enum TestCaller {
    /// A caller in plaintext, from 10.9.0.1.
    Plaintext,
    /// `namespace/service account` of `cluster.local`.
    Peer(&'static str),
    /// Trust domain, namespace and service account.
    Foreign(&'static str, &'static str),
}

impl TestCaller {
    pub fn calls(self, port: u16) -> ConnectionAttributes {
        let identity = |trust_domain: &str, account: &str| {
            let trust_domain = TrustDomain::new(trust_domain).expect("valid");
            let (namespace, account) = account.split_once('/').expect("namespace/account");
            Some(WorkloadIdentity::new(trust_domain, namespace, account).expect("valid"))
        };
        ConnectionAttributes {
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

pub fn web() -> Workload {
    pod("prod/web", &["10.0.0.1", "fd00::1"])
}

/// A port that carries HTTP, and one policy `prod/policy` with an operation.
pub fn operation(action: &str, operation: Value) -> Arc<WorkloadPolicies> {
    let rules = json!([{"to": [{"operation": operation}]}]);
    let spec = json!({"action": action, "rules": rules});
    TestMesh::http().authorize("prod/policy", spec).policies()
}

/// A port that carries HTTP, and one policy `prod/policy` with a condition.
pub fn condition(action: &str, condition: Value) -> Arc<WorkloadPolicies> {
    let spec = json!({"action": action, "rules": [{"when": [condition]}]});
    TestMesh::http().authorize("prod/policy", spec).policies()
}

/// A request without headers to the host `web`.
pub fn request(method: &str, path: &str) -> RequestAttributes {
    RequestAttributes {
        method: method.to_owned(),
        authority: "web".to_owned(),
        path: path.to_owned(),
        path_and_query: path.to_owned(),
        headers: http::HeaderMap::new(),
        forwarded_for: None,
        token: None,
    }
}
