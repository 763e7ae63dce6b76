//! The issuance policy by itself, and the whole service over TLS.

mod api_server;
mod audit;

mod ca;
mod issuance;
mod issuance_policy;
mod online;
mod refusals;
mod server;

use serde_json::{Value, json};

use super::account::ServiceAccount;
use super::caller::{AuthenticatedCaller, BoundPod};
use super::pods::{KnownPod, PodIndex};
use ambit_model::ObjectName;

/// The service account of the node agents.
const AGENT: &str = "mesh/agent";

/// The service account `namespace/name`.
pub(super) fn account(name: &str) -> ServiceAccount {
    name.parse().expect("an account")
}

/// The uid of pods with this name.
fn uid(pod: &str) -> String {
    format!("uid-of-{pod}")
}

/// A caller: a pod of an account, on a node.
pub(super) fn caller(of: &str, pod: &str, node: Option<&str>) -> AuthenticatedCaller {
    let account = account(of);
    AuthenticatedCaller {
        pod: BoundPod {
            name: ObjectName::new(account.namespace(), pod),
            uid: uid(pod).into(),
        },
        node: node.map(Into::into),
        account,
    }
}

/// A pod of an account on a node.
pub(super) fn pod(of: &str, name: &str, node: &str) -> KnownPod {
    let account = account(of);
    KnownPod {
        name: ObjectName::new(account.namespace(), name),
        uid: Some(uid(name).into()),
        node: Some(node.into()),
        account,
    }
}

/// Two nodes, each with an agent; `shop/web` on the first, `shop/db` on the second.
fn pods() -> PodIndex {
    PodIndex::from_iter([
        pod(AGENT, "agent-1", "node-1"),
        pod(AGENT, "agent-2", "node-2"),
        pod("shop/web", "web-0", "node-1"),
        pod("shop/db", "db-0", "node-2"),
    ])
}

/// The agent of the first node.
fn agent() -> AuthenticatedCaller {
    caller(AGENT, "agent-1", Some("node-1"))
}

/// A sidecar on the first node.
fn sidecar() -> AuthenticatedCaller {
    caller("shop/web", "web-0", Some("node-1"))
}

/// What Kubernetes puts under `kubernetes.io` into a caller's token.
fn binding(caller: &AuthenticatedCaller) -> Value {
    let node = caller.node.as_deref();
    json!({
        "namespace": caller.account.namespace(),
        "serviceaccount": {"name": caller.account.name(), "uid": "1"},
        "pod": {"name": &*caller.pod.name.name, "uid": &*caller.pod.uid},
        "node": node.map(|name| json!({"name": name, "uid": "2"})),
    })
}
