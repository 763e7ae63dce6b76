//! Ambit's verdicts on a case.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use ambit_model::{
    AppProtocol, IstioClaim, Membership, MeshRanges, MeshSettings, ObjectName, ObjectOrigin,
    PolicyKind, PolicyObject, Revision, Service, ServicePort, Snapshot, SnapshotParts, TargetPort,
    TrustBundle, TrustDomain, Workload, WorkloadIdentity,
};
use ambit_policy::{
    Approvals, ConnectionAttributes, ConnectionVerdict, MeshView, WorkloadPolicies,
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::case::{Case, Protocol};
use crate::peer::Peer;
use crate::request::Request;

/// The verdict on a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// It reaches the application.
    Allowed,
    /// Policy denies it.
    Denied,
    /// No application should see this request.
    Malformed,
    /// Envoy answers something else.
    Other(u16),
}

/// The policies of a case, attached to the workload at an address.
pub(crate) struct Evaluator {
    policies: Arc<WorkloadPolicies>,
    address: SocketAddr,
    mode: ambit_model::PathNormalization,
    protocol: Protocol,
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
            membership: Membership::OptedIn,
            ready: true,
            named_ports: BTreeMap::new(),
            probe_ports: BTreeSet::new(),
            netns: None,
            istio_claim: IstioClaim::None,
        };
        let service = Service {
            name: ObjectName::new("prod", "web"),
            addresses: Vec::new(),
            ports: vec![ServicePort {
                name: None,
                port: address.port(),
                target: TargetPort::Number(address.port()),
                protocol: match case.protocol {
                    Protocol::Http1 | Protocol::Http2 => AppProtocol::Http,
                    Protocol::Opaque => AppProtocol::Opaque,
                },
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
            endpoint_slices: Vec::new(),
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
            protocol: case.protocol,
        })
    }

    /// The verdict on a request, or on its connection.
    pub(crate) fn judge(&self, request: &Request) -> Result<Outcome> {
        let connection = ConnectionAttributes {
            identity: match request.peer {
                Peer::Nobody => None,
                Peer::Known(principal) => Some(principal.parse()?),
            },
            source: request.source.into(),
            destination: self.address,
        };
        match self.protocol {
            Protocol::Http1 | Protocol::Http2 => Ok(self.judge_request(&connection, request)),
            Protocol::Opaque => self.judge_opaque(&connection),
        }
    }

    /// By the verdict on the connection, if there is one.
    fn judge_request(&self, connection: &ConnectionAttributes, request: &Request) -> Outcome {
        let Ok(attributes) = request.attributes(self.mode) else {
            return Outcome::Malformed;
        };
        match self.policies.judge_connection(connection) {
            ConnectionVerdict::Allow(_) => Outcome::Allowed,
            ConnectionVerdict::Deny(_) => Outcome::Denied,
            ConnectionVerdict::Ask => {
                let nobody = Approvals::default();
                let policies = &self.policies;
                match policies.judge_request(connection, &attributes, &nobody) {
                    Ok(_) => Outcome::Allowed,
                    Err(_) => Outcome::Denied,
                }
            }
        }
    }

    /// Both verdicts on a connection that does not carry HTTP must be the same.
    fn judge_opaque(&self, connection: &ConnectionAttributes) -> Result<Outcome> {
        let nobody = Approvals::default();
        let outcome = match self.policies.judge_opaque(connection, &nobody) {
            Ok(_) => Outcome::Allowed,
            Err(_) => Outcome::Denied,
        };
        let at_first = match self.policies.judge_connection(connection) {
            ConnectionVerdict::Allow(_) => Outcome::Allowed,
            ConnectionVerdict::Deny(_) => Outcome::Denied,
            ConnectionVerdict::Ask => outcome,
        };
        ensure!(
            outcome == at_first,
            "{outcome:?}, and {at_first:?} at first"
        );
        Ok(outcome)
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
        origin: ObjectOrigin::Kubernetes,
    }
}
