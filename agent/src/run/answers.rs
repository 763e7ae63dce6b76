//! Makes the agent's answers to operators.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::RunConfig;
use super::leftovers::ClosedNetns;
use super::pods::{NodeReport, PodReport};
use crate::admin::answer::{
    AdminAnswer, ClosedNetnsAnswer, Measured, MemoryAnswer, PodCounts, PolicySetCounts, Row,
    ServingState, StatusAnswer, WorkloadAnswer, WorkloadState,
};
use crate::admin::request::AdminRequest;
use crate::admin::server::AdminState;
use ambit_datapath::cgroup::CgroupPath;
use ambit_datapath::foreign::{foreign_programs_of_cgroup, own_programs};
use ambit_datapath::{Counters, PolicyTables};
use ambit_identity::{CertificateSummary, Identities};
use ambit_jwt::KeyCache;
use ambit_model::{Fault, Membership, Workload};
use ambit_observe::events::RecentEvents;
use ambit_observe::logging::DroppedLines;
use ambit_policy::MeshView;
use ambit_proxy::Proxy;

/// Protocols that do not go through the mesh.
const NOT_COVERED: [&str; 5] = ["UDP", "QUIC", "SCTP", "ICMP", "raw sockets"];

/// The sources of the answers.
pub(super) struct AgentState {
    pub(super) config: RunConfig,
    pub(super) cgroup: CgroupPath,
    pub(super) mesh: watch::Receiver<Arc<MeshView>>,
    pub(super) node: watch::Receiver<NodeReport>,
    pub(super) proxy: Arc<Proxy>,
    pub(super) tables: PolicyTables,
    pub(super) identities: Identities,
    pub(super) keys: Arc<KeyCache>,
    pub(super) counters: Counters,
    pub(super) events: Arc<RecentEvents>,
    pub(super) dropped_lines: DroppedLines,
}

impl AdminState for AgentState {
    async fn answer(&self, request: AdminRequest) -> Result<AdminAnswer, String> {
        Ok(match request {
            AdminRequest::Status => AdminAnswer::Status(Box::new(self.status().await)),
            AdminRequest::Workloads => AdminAnswer::Workloads(self.workloads()),
            AdminRequest::Policies => AdminAnswer::Policies(self.view().policies.conditions()),
            AdminRequest::Connections => {
                AdminAnswer::Connections(Measured::of(self.proxy.connections().await))
            }
            AdminRequest::Certificates => AdminAnswer::Certificates(self.identities.list()),
            AdminRequest::CertificateChains => {
                AdminAnswer::CertificateChains(self.identities.chains())
            }
            AdminRequest::Events => AdminAnswer::Events(self.events.list()),
            AdminRequest::Explain(question) => {
                let answer = self.view().explain(&question);
                AdminAnswer::Explanation(Box::new(answer.map_err(|error| error.to_string())?))
            }
        })
    }
}

impl AgentState {
    fn view(&self) -> Arc<MeshView> {
        Arc::clone(&self.mesh.borrow())
    }

    async fn status(&self) -> StatusAnswer {
        let view = self.view();
        let wanted = view
            .snapshot
            .workloads()
            .iter()
            .filter(|workload| self.is_wanted(workload));
        let node = self.node.borrow().clone();
        let count = |state| node.pods.iter().filter(|pod| pod.state == state).count();
        let pods = PodCounts {
            served: count(ServingState::Served),
            closed: count(ServingState::Closed),
            unprotected: count(ServingState::Unprotected),
            left_to_istio: count(ServingState::LeftToIstio),
        };
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
        let all_served =
            view.snapshot.is_complete() && pods.served + pods.left_to_istio == wanted.count();
        let kernel_is_up_to_date = node.kernel_faults.is_empty();
        let faults: Vec<Fault> = of_model.chain(keys).chain(of_certificates).collect();
        let sets = self.tables.counts();
        StatusAnswer {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.config.node.clone(),
            trust_domain: self.config.trust_domain.clone(),
            // A pod whose certificate has expired is served, and each new connection is refused.
            ready: all_served && kernel_is_up_to_date && summary.expired == 0,
            cgroup: self.cgroup.path().to_owned(),
            foreign_programs: self.foreign_programs(),
            ranges: self.config.ranges.clone(),
            shards: self.proxy.shards(),
            same_node: Cow::Borrowed(self.config.same_node.as_str()),
            not_covered: NOT_COVERED.map(Cow::Borrowed).into(),
            pods,
            kept_closed: kept_closed(&node.kept),
            certificates: summary,
            policy_sets: PolicySetCounts {
                in_kernel: sets.in_kernel,
                in_userspace: sets.in_userspace,
                refusing: sets.refusing,
            },
            dropped_log_lines: self.dropped_lines.count(),
            events: self.events.losses(),
            memory: MemoryAnswer::of(&self.proxy.memory()),
            faults,
            kernel: Measured::of(self.counters.read().map(words)),
            proxy: match self.proxy.stats().await {
                Ok(stats) => Measured::of(Row::of(&stats)),
                Err(error) => Measured::of(Err(error)),
            },
            rules: self.events.tallies(),
        }
    }

    fn foreign_programs(&self) -> Measured<Vec<Row>> {
        let programs =
            own_programs().and_then(|own| foreign_programs_of_cgroup(&self.cgroup, &own));
        match programs {
            Ok(programs) => Measured::of(programs.iter().map(Row::of).collect()),
            Err(error) => Measured::of(Err(error)),
        }
    }

    fn is_wanted(&self, workload: &Workload) -> bool {
        workload.is_opted_in() && workload.node.as_deref() == Some(self.config.node.as_str())
    }

    fn workloads(&self) -> Vec<WorkloadAnswer> {
        let view = self.view();
        let pods = &self.node.borrow().pods;
        let workloads = view.snapshot.workloads().iter().map(|workload| {
            let report = pods.iter().find(|pod| pod.name == workload.name);
            let (state, reason) = state(workload, report);
            WorkloadAnswer {
                pod: workload.name.clone(),
                node: workload.node.clone(),
                addresses: workload.addresses.clone(),
                identity: workload.identity.clone(),
                state,
                reason,
                netns_cookie: report.and_then(|pod| pod.netns).map(|cookie| cookie.0),
                policy_set: report.and_then(|pod| pod.policy_set).map(|set| set.0),
                listener_ports: report.map(|pod| pod.listener_ports.clone()),
            }
        });
        workloads.collect()
    }
}

/// The state of a workload, and why it is not served.
fn state(workload: &Workload, report: Option<&PodReport>) -> (WorkloadState, Option<String>) {
    match (&workload.membership, report) {
        (Membership::NotOptedIn, _) => (WorkloadState::NotOptedIn, None),
        (Membership::Never(never), _) => (WorkloadState::NeverEnrolled, Some(never.to_string())),
        (Membership::OptedIn, None) => (WorkloadState::Remote, None),
        (Membership::OptedIn, Some(pod)) => (WorkloadState::OfNode(pod.state), pod.reason.clone()),
    }
}

/// The network namespaces in which a pod was served, and none is now.
fn kept_closed(kept: &[ClosedNetns]) -> Vec<ClosedNetnsAnswer> {
    let closed = kept.iter().map(|one| ClosedNetnsAnswer {
        netns_cookie: one.netns.0,
        pod: one.pod.clone(),
        reason: one.reason.clone(),
    });
    closed.collect()
}

fn words(counts: BTreeMap<&'static str, u64>) -> BTreeMap<Cow<'static, str>, u64> {
    let counts = counts.into_iter();
    counts
        .map(|(word, count)| (Cow::Borrowed(word), count))
        .collect()
}
