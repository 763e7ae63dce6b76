//! What policies mean, by name: the cases of the specification, with a denial beside each
//! permission, and a property that holds evaluator and kernel tables against each other.

mod admission;
mod agreement;
mod attachment;
mod custom;
mod dry_run;
mod explain;
mod generate;
mod headers;
mod hosts;
mod identity;
mod methods;
mod not_enforced;
mod notes;
mod opaque;
mod paths;
mod peer_authentication;
mod remote_ip;
mod revision;
mod scope;
mod tokens;
mod trust;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use agreement::assert_judged_alike;
pub(crate) use generate::{connection, policies};

use ambit_common::Reason;
use serde_json::{Value, json};

use super::{
    Approvals, Attributes, ConnectionVerdict, Decision, MeshView, PolicyCondition, PolicyIndex,
    RequestAttributes, RequestDecision, WorkloadPolicies,
};
use crate::model::testing::{parts, pod, service};
use crate::model::{
    AppProtocol, ObjectName, Origin, PolicyKind, PolicyObject, Revision, Service, Snapshot,
    TargetPort, TrustBundle, TrustDomain, Workload, WorkloadIdentity,
};

const ROOT: &str = "istio-system";

/// A mesh whose only workload is `prod/web`, with the label `app: web`, at 10.0.0.1 and fd00::1. Its
/// Service `prod/web` has the port 80, which is the pod's 8080.
#[derive(Debug)]
pub(crate) struct Mesh {
    policies: Vec<PolicyObject>,
    protocol: AppProtocol,
    others: Vec<Service>,
    trust_bundle: TrustBundle,
    revision: Revision,
}

impl Mesh {
    pub(crate) fn new() -> Self {
        Self {
            policies: Vec::new(),
            protocol: AppProtocol::Opaque,
            others: Vec::new(),
            trust_bundle: parts().trust_bundle,
            revision: Revision::default(),
        }
    }

    /// A mesh whose port 8080 carries HTTP.
    fn http() -> Self {
        Self {
            protocol: AppProtocol::Http,
            ..Self::new()
        }
    }

    fn with(mut self, kind: PolicyKind, name: &str, spec: Value) -> Self {
        let (namespace, name) = name.split_once('/').expect("namespace/name");
        self.policies.push(PolicyObject {
            kind,
            name: ObjectName::new(namespace, name),
            revision: None,
            annotations: BTreeMap::new(),
            created: None,
            spec,
            origin: Origin::Kubernetes,
        });
        self
    }

    /// With the last policy as a dry run.
    fn on_trial(self) -> Self {
        self.dry_run("true")
    }

    /// With a value of `istio.io/dry-run` on the last policy.
    fn dry_run(mut self, value: &str) -> Self {
        let policy = self.policies.last_mut().expect("a policy");
        let annotation = ("istio.io/dry-run".to_owned(), value.to_owned());
        policy.annotations.extend([annotation]);
        self
    }

    /// With another Service.
    fn serve(mut self, service: Service) -> Self {
        self.others.push(service);
        self
    }

    /// Of these trust domains, the own one first.
    fn trusting(mut self, domains: &[&str]) -> Self {
        let mut domains = domains
            .iter()
            .map(|text| TrustDomain::new(text).expect("valid"));
        self.trust_bundle = TrustBundle {
            own: domains.next().expect("the own one"),
            aliases: domains.collect(),
        };
        self
    }

    /// With an AuthorizationPolicy.
    pub(crate) fn authorize(self, name: &str, spec: Value) -> Self {
        self.with(PolicyKind::AuthorizationPolicy, name, spec)
    }

    /// With a PeerAuthentication.
    fn authenticate(self, name: &str, spec: Value) -> Self {
        self.with(PolicyKind::PeerAuthentication, name, spec)
    }

    fn index(self) -> PolicyIndex {
        let mut service: Service = service("prod/web", &[], 80, TargetPort::Number(8080));
        service.ports[0].protocol = self.protocol;
        let snapshot = Snapshot::new(crate::model::SnapshotParts {
            workloads: vec![web()],
            services: [vec![service], self.others].concat(),
            policies: self.policies,
            trust_bundle: self.trust_bundle,
            revision: self.revision,
            ..parts()
        });
        PolicyIndex::build(&Arc::new(snapshot))
    }

    fn view(self) -> MeshView {
        let policies = self.index();
        MeshView {
            snapshot: Arc::clone(&policies.snapshot),
            policies,
        }
    }

    /// What became of the policy `prod/policy`.
    fn condition(self) -> PolicyCondition {
        let mut shown = self.index().conditions().into_iter();
        let own = shown.find(|shown| shown.name.to_string() == "prod/policy");
        own.expect("shown")
    }

    pub(crate) fn policies(self) -> Arc<WorkloadPolicies> {
        self.index().for_workload(&web())
    }

    /// Whether a caller is let in on port 8080.
    fn admits(self, caller: Caller) -> bool {
        self.policies().admits(caller, 8080)
    }
}

impl WorkloadPolicies {
    /// Whether a connection is let in that carries no HTTP. The kernel's tables have to agree.
    fn admits(&self, caller: Caller, port: u16) -> bool {
        let connection = caller.calls(port);
        agreement::assert_agreement(self, &connection);
        matches!(
            self.judge_opaque(&connection, &Approvals::default()),
            Decision::Allow(_)
        )
    }

    /// Whether a request is let in. The verdict on its connection may not contradict that.
    fn admits_request(&self, caller: Caller, request: &RequestAttributes) -> bool {
        let connection = caller.calls(8080);
        agreement::assert_agreement(self, &connection);
        agreement::assert_no_contradiction(self, &connection, std::slice::from_ref(request));
        let decision = self.judge_request(&connection, request, &Approvals::default());
        matches!(decision, RequestDecision::Allow(_))
    }

    fn reason(&self, caller: Caller) -> Option<Reason> {
        match self.judge_connection(&caller.calls(8080)) {
            ConnectionVerdict::Allow(_) | ConnectionVerdict::Ask => None,
            ConnectionVerdict::Deny(denial) => Some(denial.reason),
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

/// A port that carries HTTP, and one policy `prod/policy` with an operation.
fn operation(action: &str, operation: Value) -> Arc<WorkloadPolicies> {
    let rules = json!([{"to": [{"operation": operation}]}]);
    let spec = json!({"action": action, "rules": rules});
    Mesh::http().authorize("prod/policy", spec).policies()
}

/// The same, with a condition.
fn condition(action: &str, condition: Value) -> Arc<WorkloadPolicies> {
    let spec = json!({"action": action, "rules": [{"when": [condition]}]});
    Mesh::http().authorize("prod/policy", spec).policies()
}

/// A request without headers to the host `web`.
fn request(method: &str, path: &str) -> RequestAttributes {
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
