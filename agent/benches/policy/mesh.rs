//! A workload with many rules, read as the agent reads it.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use ambit_model::{ObjectName, Revision, TrustBundle, TrustDomain, WorkloadIdentity};
use ambit_policy::{ConnectionAttributes, MeshView, RequestAttributes, WorkloadPolicies};
use ambit_source::files::offline::{Input, OfflineConfig, read_once};
use anyhow::{Context, Result, ensure};

/// Rules of one object; Istio takes 512 at most.
const RULES_OF_A_POLICY: usize = 500;

const PORT: u16 = 8080;

/// What the rules are about.
#[derive(Clone, Copy)]
pub(crate) enum Rules {
    /// A principal and a port.
    Connections,
    /// A principal, a port, a method and a path.
    Requests,
}

/// What decides about a workload that has `count` rules, each of which allows one client.
pub(crate) fn policies(rules: Rules, count: usize) -> Result<Arc<WorkloadPolicies>> {
    let input = Input::Text {
        name: "bench".to_owned(),
        text: yaml(rules, count)?,
    };
    let config = OfflineConfig {
        trust_bundle: TrustBundle::without_aliases(TrustDomain::new("cluster.local")?),
        root_namespace: "istio-system".into(),
        revision: Revision::default(),
    };
    let files = read_once(vec![input], config);
    ensure!(files.broken.is_empty(), "{:?}", files.broken);
    let view = MeshView::new(files.snapshot);
    let workloads = view.snapshot.workloads();
    let name = ObjectName::new("prod", "web");
    let workload = workloads
        .iter()
        .find(|one| one.name == name)
        .context("no workload")?;
    Ok(view.policies.for_workload(workload))
}

/// A connection of the client that rule `number` allows.
pub(crate) fn connection(number: usize) -> Result<ConnectionAttributes> {
    let domain = TrustDomain::new("cluster.local")?;
    let identity = WorkloadIdentity::new(domain, "clients", &account(number))?;
    Ok(ConnectionAttributes {
        identity: Some(identity),
        source: [10, 0, 1, 1].into(),
        destination: SocketAddr::from(([10, 0, 0, 1], PORT)),
    })
}

/// The request that rule `number` allows.
pub(crate) fn request(number: usize) -> RequestAttributes {
    let path = format!("/{number}/item");
    RequestAttributes {
        method: "GET".to_owned(),
        authority: "web".to_owned(),
        path_and_query: path.clone(),
        path,
        headers: http::HeaderMap::new(),
        forwarded_for: None,
        token: None,
    }
}

fn account(number: usize) -> String {
    format!("client-{number}")
}

fn yaml(rules: Rules, count: usize) -> Result<String> {
    let mut text = WORKLOAD.to_owned();
    for (number, first) in (0..count).step_by(RULES_OF_A_POLICY).enumerate() {
        let name = format!("clients-{number:03}");
        write!(
            text,
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: {name}, namespace: prod}}\n\
             spec:\n  selector: {{matchLabels: {{app: web}}}}\n  rules:\n"
        )?;
        for number in first..count.min(first + RULES_OF_A_POLICY) {
            let account = account(number);
            let http = match rules {
                Rules::Connections => String::new(),
                Rules::Requests => format!(", methods: [GET], paths: [\"/{number}/*\"]"),
            };
            write!(
                text,
                "  - from: [{{source: {{principals: [cluster.local/ns/clients/sa/{account}]}}}}]\n\
                 \x20   to: [{{operation: {{ports: [\"{PORT}\"]{http}}}}}]\n"
            )?;
        }
    }
    Ok(text)
}

const WORKLOAD: &str = r#"
apiVersion: v1
kind: Namespace
metadata:
  name: prod
  labels: {istio.io/dataplane-mode: ambient}
---
apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: prod
  labels: {app: web}
spec:
  containers: [{name: web}]
status:
  podIP: 10.0.0.1
  podIPs: [{ip: 10.0.0.1}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: prod}
spec:
  clusterIP: 10.96.0.1
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
"#;
