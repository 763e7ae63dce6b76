//! The agents, as the cluster knows them: a service account, a pod on each node, and what their
//! tokens say.

use serde_json::{Value, json};

use crate::plan::{Family, NodeName};

/// Their service account.
pub(crate) const AGENT: (&str, &str) = ("ambit-system", "ambit");

/// The issuer of the cluster's tokens.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The audience of tokens for requesting certificates.
pub(crate) const AUDIENCE: &str = "istio-ca";

/// The name of the agent's pod on a node.
pub(crate) fn agent_pod(node: NodeName) -> &'static str {
    match node {
        NodeName::A => "agent-a",
        NodeName::B => "agent-b",
    }
}

/// The pod of the DaemonSet on a node.
pub(crate) fn agent_manifest(node: NodeName) -> Value {
    let (namespace, account) = AGENT;
    let address = node.link_addresses().of(Family::V4);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": agent_pod(node)},
        "spec": {
            "nodeName": node.as_str(),
            "hostNetwork": true,
            "serviceAccountName": account,
            "containers": [{"name": "ambit", "image": "ambit"}],
        },
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}
