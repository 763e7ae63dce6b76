//! The agent's answers. Other programs parse their field names, and `ambit` shows the fields in this order.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use ambit_account::NodeUsage;
use ambit_identity::{CertificateInfo, CertificateSummary, PresentedChain};
use ambit_model::{Fault, MeshRanges, ObjectName, TrustDomain, WorkloadIdentity};
use ambit_observe::event::RecentEvent;
use ambit_observe::events::EventLosses;
use ambit_observe::tally::RuleTally;
use ambit_policy::PolicyCondition;
use ambit_policy::explain::AccessExplanation;
use ambit_proxy::ConnectionInfo;

/// An answer to an [`AdminRequest`](super::request::AdminRequest), under the same name.
#[derive(Debug, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "see the requests")]
pub enum AdminAnswer {
    Status(Box<StatusAnswer>),
    Workloads(Vec<WorkloadAnswer>),
    Policies(Vec<PolicyCondition>),
    Connections(Measured<Vec<ConnectionInfo>>),
    Certificates(Vec<CertificateInfo>),
    CertificateChains(Vec<PresentedChain>),
    Events(Vec<RecentEvent>),
    Explanation(Box<AccessExplanation>),
}

/// Why there is no answer, or no value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorAnswer {
    /// A sentence.
    pub error: String,
}

/// A value that is read for the answer, which may fail.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Measured<T> {
    /// It could not be read.
    Failed(ErrorAnswer),
    /// The value.
    Known(T),
}

impl<T> Measured<T> {
    /// The value, or the error of the attempt to read it.
    pub fn of<E: std::error::Error>(result: Result<T, E>) -> Self {
        match result {
            Ok(value) => Self::Known(value),
            Err(error) => Self::Failed(ErrorAnswer {
                error: error.to_string(),
            }),
        }
    }
}

/// An object that a client shows without reading its fields.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Row(Map<String, Value>);

impl Row {
    /// A value as an object.
    ///
    /// # Errors
    /// If it is not an object.
    pub fn of(value: &impl Serialize) -> serde_json::Result<Self> {
        serde_json::from_value(serde_json::to_value(value)?)
    }
}

/// The state of the agent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// The agent's version.
    pub version: String,
    /// The node's name.
    pub node: String,
    /// The mesh's trust domain.
    pub trust_domain: TrustDomain,
    /// Whether every pod of the node that is opted in is served.
    pub ready: bool,
    /// The cgroup below which the pods run.
    pub cgroup: PathBuf,
    /// Other projects' programs on Ambit's hooks:
    /// [`ForeignProgram`](ambit_datapath::foreign::ForeignProgram)s.
    pub foreign_programs: Measured<Vec<Row>>,
    /// The cluster's pod and Service ranges.
    pub ranges: MeshRanges,
    /// Threads of the data path.
    pub shards: usize,
    /// How connections between two pods of this node travel: `tunnel` or `handoff`.
    pub same_node: Cow<'static, str>,
    /// Protocols that do not go through the mesh.
    pub not_covered: Vec<Cow<'static, str>>,
    /// How many of the node's pods are in each state.
    pub pods: PodCounts,
    /// Network namespaces that are kept closed.
    pub kept_closed: Vec<ClosedNetnsAnswer>,
    /// The certificates of the node's pods, by state.
    pub certificates: CertificateSummary,
    /// Where policy sets are judged.
    pub policy_sets: PolicySetCounts,
    /// Log lines that could not be written.
    pub dropped_log_lines: usize,
    /// Events and lines that were left out.
    pub events: EventLosses,
    /// The memory of what waits.
    pub memory: MemoryAnswer,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// Outcomes in the kernel.
    pub kernel: Measured<BTreeMap<Cow<'static, str>, u64>>,
    /// Outcomes in the proxy: [`ProxyStats`](ambit_proxy::ProxyStats).
    pub proxy: Measured<Row>,
    /// How often each rule decided.
    pub rules: Vec<RuleTally>,
}

/// How many of the node's pods are in each state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PodCounts {
    /// [`ServingState::Served`].
    pub served: usize,
    /// [`ServingState::Closed`].
    pub closed: usize,
    /// [`ServingState::Unprotected`].
    pub unprotected: usize,
    /// [`ServingState::LeftToIstio`].
    pub left_to_istio: usize,
}

/// The node's account of memory, from which everything that waits draws. In bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemoryAnswer {
    /// What all pods may have in use (`--memory`).
    pub limit: usize,
    /// What they have in use.
    pub in_use: usize,
    /// The most that they have had in use.
    pub peak: usize,
    /// What each pod is guaranteed.
    pub guaranteed_to_each_pod: usize,
    /// How often something was refused for want of memory.
    pub refused: u64,
}

impl MemoryAnswer {
    /// Returns the figures of an account.
    #[must_use]
    pub const fn of(usage: &NodeUsage) -> Self {
        Self {
            limit: usage.limit,
            in_use: usage.in_use,
            peak: usage.peak,
            guaranteed_to_each_pod: usage.guarantee,
            refused: usage.refused,
        }
    }
}

/// A network namespace that stays closed, and in which no pod is served.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClosedNetnsAnswer {
    /// The kernel's number of it.
    pub netns_cookie: u64,
    /// The pod that it was given to.
    pub pod: Option<ObjectName>,
    /// Why it stays closed.
    pub reason: String,
}

/// Where policy sets are judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicySetCounts {
    /// By the kernel's tables.
    pub in_kernel: usize,
    /// In userspace, because they do not fit into the tables.
    pub in_userspace: usize,
    /// Not at all: they refuse everything, because a policy cannot be enforced.
    pub refusing: usize,
}

/// A workload that the agent knows.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WorkloadAnswer {
    /// The pod.
    pub pod: ObjectName,
    /// Its node.
    pub node: Option<Arc<str>>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its identity.
    pub identity: WorkloadIdentity,
    /// Its state.
    pub state: WorkloadState,
    /// Why it is not served.
    pub reason: Option<String>,
    /// The kernel's number of its network namespace, if it is enrolled here.
    pub netns_cookie: Option<u64>,
    /// Its policy set in the kernel's tables.
    pub policy_set: Option<u32>,
    /// The ports of the proxy's listeners in it.
    pub listener_ports: Option<Vec<u16>>,
}

/// The state of a workload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum WorkloadState {
    /// Its objects do not opt it in.
    #[serde(rename = "not opted in")]
    NotOptedIn,
    /// Its spec says that it can never be enrolled.
    #[serde(rename = "never enrolled")]
    NeverEnrolled,
    /// It is opted in, and on another node.
    #[serde(rename = "remote")]
    Remote,
    /// It is opted in, and on this node.
    #[serde(untagged)]
    OfNode(ServingState),
}

/// Whether a pod of this node that is opted in is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ServingState {
    /// It is enrolled, and the agent carries its connections.
    #[serde(rename = "served")]
    Served,
    /// Its network namespace is closed in both directions.
    #[serde(rename = "closed")]
    Closed,
    /// It is not in the kernel, because the agent cannot find it: its traffic passes.
    #[serde(rename = "unprotected")]
    Unprotected,
    /// Istio's ztunnel serves it.
    #[serde(rename = "left to Istio")]
    LeftToIstio,
}

impl ServingState {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Served,
        Self::Closed,
        Self::Unprotected,
        Self::LeftToIstio,
    ];

    /// The word that operators see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Closed => "closed",
            Self::Unprotected => "unprotected",
            Self::LeftToIstio => "left to Istio",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn states_are_single_words_in_json() {
        for state in ServingState::ALL {
            let of_node = WorkloadState::OfNode(state);
            let word = serde_json::to_value(of_node).unwrap();
            assert_eq!(word, state.as_str());
            assert_eq!(
                serde_json::from_value::<WorkloadState>(word).unwrap(),
                of_node
            );
        }
        let remote: WorkloadState = serde_json::from_value(json!("remote")).unwrap();
        assert_eq!(remote, WorkloadState::Remote);
    }

    #[test]
    fn a_value_and_a_failure_to_read_it_are_told_apart() {
        type Numbers = Measured<BTreeMap<String, u64>>;
        for (answer, failed) in [(json!({"error": "x"}), true), (json!({"denied": 1}), false)] {
            let read: Numbers = serde_json::from_value(answer.clone()).unwrap();
            assert_eq!(matches!(read, Measured::Failed(_)), failed);
            assert_eq!(serde_json::to_value(read).unwrap(), answer);
        }
    }
}
