//! What Ambit makes of a case.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use ambit::model::{
    AppProtocol, Enrolment, MeshRanges, MeshSettings, ObjectName, Origin, PolicyKind, PolicyObject,
    Revision, Service, ServicePort, Snapshot, SnapshotParts, TargetPort, TrustBundle, TrustDomain,
    Workload, WorkloadIdentity,
};
use ambit::policy::{
    Approvals, Attributes, ConnectionVerdict, MeshView, RequestDecision, WorkloadPolicies,
};
use anyhow::{Context, Result};
use serde_json::Value;

use crate::case::Case;
use crate::peer::Peer;
use crate::request::Request;

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// It reaches the application.
    Allowed,
    /// Policy denies it.
    Denied,
    /// It is no request that anybody should see.
    Malformed,
    /// Envoy answers something else.
    Other(u16),
}

/// The policies of a case, attached to the workload at an address.
pub(crate) struct Evaluator {
    policies: Arc<WorkloadPolicies>,
    address: SocketAddr,
    mode: ambit::model::PathNormalization,
}

impl Evaluator {
    pub(crate) fn new(case: &Case, address: SocketAddr) -> Result<Self> {
        let own = TrustDomain::new("cluster.local")?;
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let workload = Workload {
            name: ObjectName::new("prod", "web"),
            uid: "web".into(),
            node: None,
            addresses: vec![address.ip()],
            identity: WorkloadIdentity::new(own.clone(), "prod", "web")?,
            labels: labels.clone(),
            enrolment: Enrolment::OptedIn,
            ready: true,
            named_ports: BTreeMap::new(),
            probe_ports: BTreeSet::new(),
            netns: None,
        };
        let service = Service {
            name: ObjectName::new("prod", "web"),
            addresses: Vec::new(),
            ports: vec![ServicePort {
                name: None,
                port: address.port(),
                target: TargetPort::Number(address.port()),
                protocol: AppProtocol::Http,
            }],
            selector: labels,
        };
        let view = MeshView::new(Arc::new(Snapshot::new(SnapshotParts {
            trust_bundle: TrustBundle::without_aliases(own),
            root_namespace: "istio-system".into(),
            revision: Revision::default(),
            ranges: MeshRanges::default(),
            namespaces: BTreeMap::new(),
            workloads: vec![workload],
            services: vec![service],
            policies: case.policies.iter().enumerate().map(object).collect(),
            mesh_settings: MeshSettings::default(),
            faults: Vec::new(),
            complete: true,
        })));
        let workloads = view.snapshot.workloads();
        let workload = workloads.first().context("the workload")?;
        Ok(Self {
            policies: view.policies.for_workload(workload),
            address,
            mode: case.mode,
        })
    }

    /// What becomes of a request: by the verdict on its connection, where there is one.
    pub(crate) fn judge(&self, request: &Request) -> Result<Outcome> {
        let Ok(attributes) = request.attributes(self.mode) else {
            return Ok(Outcome::Malformed);
        };
        let connection = Attributes {
            identity: match request.peer {
                Peer::Nobody => None,
                Peer::Known(principal) => Some(principal.parse()?),
            },
            source: request.source.into(),
            destination: self.address,
        };
        let is_allowed = match self.policies.judge_connection(&connection) {
            ConnectionVerdict::Allow(_) => true,
            ConnectionVerdict::Deny(_) => false,
            ConnectionVerdict::Ask => {
                let nobody = Approvals::default();
                let decision = self
                    .policies
                    .judge_request(&connection, &attributes, &nobody);
                matches!(decision, RequestDecision::Allow(_))
            }
        };
        Ok(match is_allowed {
            true => Outcome::Allowed,
            false => Outcome::Denied,
        })
    }
}

fn object((number, spec): (usize, &Value)) -> PolicyObject {
    PolicyObject {
        kind: PolicyKind::AuthorizationPolicy,
        name: ObjectName::new("prod", format!("policy-{number}")),
        revision: None,
        annotations: BTreeMap::new(),
        created: None,
        spec: spec.clone(),
        origin: Origin::Kubernetes,
    }
}
