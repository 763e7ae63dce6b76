//! What the agent answers to operators.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::RunConfig;
use super::leftovers::KeptNetns;
use super::pods::{NodeReport, PodReport, PodState};
use crate::admin::server::AdminState;
use ambit_datapath::cgroup::CgroupPath;
use ambit_datapath::foreign::{foreign_programs_of_cgroup, own_programs};
use ambit_datapath::{Counters, Tables};
use ambit_identity::{CertificateSummary, Identities};
use ambit_jwt::KeyCache;
use ambit_model::{Fault, Membership, Workload};
use ambit_observe::events::RecentEvents;
use ambit_observe::logging::DroppedLines;
use ambit_policy::MeshView;
use ambit_policy::explain::AccessQuestion;
use ambit_proxy::Proxy;

/// What does not go through the mesh.
const NOT_COVERED: [&str; 5] = ["UDP", "QUIC", "SCTP", "ICMP", "raw sockets"];

/// Everything that an answer is made from.
pub(super) struct State {
    pub(super) config: RunConfig,
    pub(super) cgroup: CgroupPath,
    pub(super) mesh: watch::Receiver<Arc<MeshView>>,
    pub(super) node: watch::Receiver<NodeReport>,
    pub(super) proxy: Arc<Proxy>,
    pub(super) tables: Tables,
    pub(super) identities: Identities,
    pub(super) keys: Arc<KeyCache>,
    pub(super) counters: Counters,
    pub(super) events: Arc<RecentEvents>,
    pub(super) dropped_lines: DroppedLines,
}

impl AdminState for State {
    async fn answer(&self, what: &str) -> Option<Value> {
        match what {
            "status" => Some(self.status().await),
            "workloads" => Some(self.workloads()),
            "policies" => Some(json!(self.view().policies.conditions())),
            "connections" => Some(match self.proxy.connections().await {
                Ok(connections) => json!(connections),
                Err(error) => json!({"error": error.to_string()}),
            }),
            "certificates" => Some(json!(self.identities.list())),
            "certificate-chains" => Some(json!(self.identities.chains())),
            "events" => Some(json!(self.events.list())),
            _ => None,
        }
    }

    fn ask(&self, what: &str, question: Value) -> Option<Result<Value, String>> {
        (what == "explain").then(|| {
            let question: AccessQuestion = serde_json::from_value(question)
                .map_err(|error| format!("the question is not understood: {error}"))?;
            let answer = self.view().explain(&question);
            answer
                .map(|answer| json!(answer))
                .map_err(|error| error.to_string())
        })
    }
}

impl State {
    fn view(&self) -> Arc<MeshView> {
        Arc::clone(&self.mesh.borrow())
    }

    async fn status(&self) -> Value {
        let view = self.view();
        let wanted = view
            .snapshot
            .workloads()
            .iter()
            .filter(|workload| self.is_wanted(workload));
        let node = self.node.borrow().clone();
        let count = |state| node.pods.iter().filter(|pod| pod.state == state).count();
        let left_to_istio = count(PodState::LeftToIstio);
        let enrolled = count(PodState::Enrolled);
        let keys = self.keys.problems().into_iter().map(|problem| Fault {
            subject: "the keys of an issuer of tokens".to_owned(),
            message: problem.message,
            last_good_in_force: problem.last_good_in_force,
        });
        let of_node = node.faults.iter().chain(&node.kernel_faults);
        let of_model = view.snapshot.faults().iter().chain(of_node).cloned();
        let certificates = self.identities.list();
        let of_certificates = self.identities.faults(&certificates);
        let summary = CertificateSummary::of(&certificates);
        let all_enrolled =
            view.snapshot.is_complete() && enrolled + left_to_istio == wanted.count();
        let kernel_is_up_to_date = node.kernel_faults.is_empty();
        let faults: Vec<Fault> = of_model.chain(keys).chain(of_certificates).collect();
        let sets = self.tables.counts();
        let stats = match self.proxy.stats().await {
            Ok(stats) => json!(stats),
            Err(error) => json!({"error": error.to_string()}),
        };
        let counters = match self.counters.read() {
            Ok(counters) => json!(counters),
            Err(error) => json!({"error": error.to_string()}),
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "node": self.config.node,
            "trust_domain": self.config.trust_domain,
            // A pod whose certificate has expired is enrolled, and served no new connection.
            "ready": all_enrolled && kernel_is_up_to_date && summary.expired == 0,
            "cgroup": self.cgroup.path(),
            "foreign_programs": self.foreign_programs(),
            "ranges": self.config.ranges,
            "shards": self.proxy.shards(),
            "not_covered": NOT_COVERED,
            "pods": {
                "enrolled": enrolled,
                "closed": count(PodState::Closed),
                "unprotected": count(PodState::Unprotected),
                "left_to_istio": left_to_istio,
            },
            "kept_closed": kept_closed(&node.kept),
            "certificates": summary,
            "policy_sets": {
                "in_kernel": sets.in_kernel,
                "in_userspace": sets.in_userspace,
                "refusing": sets.refusing,
            },
            "dropped_log_lines": self.dropped_lines.count(),
            "events": self.events.losses(),
            "faults": faults,
            "kernel": counters,
            "proxy": stats,
            "rules": self.events.tallies(),
        })
    }

    fn foreign_programs(&self) -> Value {
        let programs =
            own_programs().and_then(|own| foreign_programs_of_cgroup(&self.cgroup, &own));
        match programs {
            Ok(programs) => json!(programs),
            Err(error) => json!({"error": error.to_string()}),
        }
    }

    fn is_wanted(&self, workload: &Workload) -> bool {
        workload.is_opted_in() && workload.node.as_deref() == Some(self.config.node.as_str())
    }

    fn workloads(&self) -> Value {
        let view = self.view();
        let pods = &self.node.borrow().pods;
        let rows = view.snapshot.workloads().iter().map(|workload| {
            let report = pods.iter().find(|pod| pod.name == workload.name);
            let (state, reason) = enrolment(workload, report);
            json!({
                "pod": workload.name,
                "node": workload.node,
                "addresses": workload.addresses,
                "identity": workload.identity,
                "state": state,
                "reason": reason,
                "netns_cookie": report.and_then(|pod| pod.netns).map(|cookie| cookie.0),
                "policy_set": report.and_then(|pod| pod.policy_set).map(|set| set.0),
                "listener_ports": report.map(|pod| &pod.listener_ports),
            })
        });
        rows.collect()
    }
}

/// How far a workload has come, and why it has come no further.
fn enrolment(workload: &Workload, report: Option<&PodReport>) -> (&'static str, Option<String>) {
    match (&workload.membership, report) {
        (Membership::NotOptedIn, _) => ("not opted in", None),
        (Membership::Never(never), _) => ("never enrolled", Some(never.to_string())),
        (Membership::OptedIn, None) => ("remote", None),
        (Membership::OptedIn, Some(pod)) => (pod.state.as_str(), pod.reason.clone()),
    }
}

/// Network namespaces in which no pod is served, though one was.
fn kept_closed(kept: &[KeptNetns]) -> Value {
    let rows = kept.iter().map(|one| {
        json!({
            "netns_cookie": one.netns.0,
            "pod": one.pod,
            "reason": one.reason,
        })
    });
    rows.collect()
}
