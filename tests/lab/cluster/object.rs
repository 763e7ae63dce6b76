//! Objects of the cluster without a manifest in the lab, and the paths of objects.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::text;
use crate::plan::NodeName;

/// A service account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Account<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl<'a> From<(&'a str, &'a str)> for Account<'a> {
    fn from((namespace, name): (&'a str, &'a str)) -> Self {
        Self { namespace, name }
    }
}

/// A Node.
pub(super) fn node(node: NodeName) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.as_str()}})
}

/// A Namespace.
pub(super) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A ServiceAccount.
pub(super) fn service_account(account: Account<'_>) -> Value {
    let Account { namespace, name } = account;
    let metadata = json!({"namespace": namespace, "name": name});
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
}

/// A ClusterRole of these rules and the binding that gives it to an account, both of the account's
/// name.
pub(super) fn role(account: Account<'_>, rules: &Value) -> [Value; 2] {
    let Account { namespace, name } = account;
    let api = "rbac.authorization.k8s.io";
    let version = format!("{api}/v1");
    let metadata = json!({"name": name});
    [
        json!({"apiVersion": version, "kind": "ClusterRole", "metadata": metadata, "rules": rules}),
        json!({
            "apiVersion": version,
            "kind": "ClusterRoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": name}],
        }),
    ]
}

/// The path under which objects like this one are.
pub(super) fn collection(object: &Value) -> Result<String> {
    let version = text(object, "/apiVersion")?;
    let root = if version.contains('/') { "apis" } else { "api" };
    let kind = text(object, "/kind").context("an object of no kind")?;
    let plural = format!("{}s", kind.to_lowercase());
    Ok(match text(object, "/metadata/namespace") {
        Ok(namespace) => format!("/{root}/{version}/namespaces/{namespace}/{plural}"),
        Err(_) => format!("/{root}/{version}/{plural}"),
    })
}
