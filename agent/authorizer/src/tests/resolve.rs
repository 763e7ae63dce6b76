use std::sync::Arc;

use super::*;
use ambit_model::testing::{parts, pod, service};
use ambit_model::{Membership, Snapshot, TargetPort, Workload};

/// A mesh with the Service `tools/web`, whose port 9000 is port 8080 of its pods.
fn mesh() -> Arc<Snapshot> {
    let mut mesh = parts();
    mesh.ranges.included = vec!["10.0.0.0/8".parse().expect("a network")];
    mesh.services = vec![
        service("tools/web", &["10.96.0.1"], 9000, TargetPort::Number(8080)),
        service("empty/web", &["10.96.0.2"], 9000, TargetPort::Number(8080)),
    ];
    mesh.workloads = vec![
        pod("tools/one", &["10.0.0.1", "fd00::1"]),
        pod("tools/two", &["fd00::2"]),
        Workload {
            ready: false,
            ..pod("tools/starting", &["10.0.0.3"])
        },
        Workload {
            membership: Membership::NotOptedIn,
            ..pod("other/out", &["10.0.0.4"])
        },
    ];
    Arc::new(Snapshot::new(mesh))
}

/// A text for each endpoint, with the pod's name if it is a pod.
async fn resolved(namespace: Option<&str>, host: &str, port: u16) -> io::Result<Vec<String>> {
    let service = ProviderService {
        namespace: namespace.map(Into::into),
        host: host.into(),
        port,
    };
    let endpoints = crate::resolve(mesh(), &service).await?;
    let text = |endpoint: &ServiceEndpoint| match endpoint {
        ServiceEndpoint::Pod(target) => format!("{} {}", target.workload.name, target.address),
        ServiceEndpoint::Outside(address) => format!("outside {address}"),
    };
    Ok(endpoints.iter().map(text).collect())
}

#[tokio::test]
async fn a_service_of_the_mesh_resolves_to_its_ready_pods() {
    for (namespace, host) in [
        (None, "web.tools.svc.cluster.local"),
        (Some("other"), "web.tools.svc"),
        (Some("tools"), "web"),
    ] {
        let found = resolved(namespace, host, 9000).await.expect(host);
        assert_eq!(
            found,
            ["tools/one 10.0.0.1:8080", "tools/two [fd00::2]:8080"],
            "{host}"
        );
    }
}

#[tokio::test]
async fn a_missing_port_of_a_service_is_not_looked_up_elsewhere() {
    let error = resolved(None, "web.tools.svc.cluster.local", 80).await;
    let error = error.expect_err("no such port");
    assert_eq!(error.to_string(), "Service tools/web has no TCP port 80");
}

#[tokio::test]
async fn an_address_is_interpreted_as_the_mesh_does() {
    for (host, expected) in [
        ("10.96.0.1", "tools/one 10.0.0.1:8080"),
        ("10.0.0.1", "tools/one 10.0.0.1:9000"),
        ("10.0.0.4", "other/out 10.0.0.4:9000"),
        ("127.0.0.1", "outside 127.0.0.1:9000"),
        ("192.0.2.1", "outside 192.0.2.1:9000"),
    ] {
        assert_eq!(resolved(None, host, 9000).await.expect(host), [expected]);
    }
}

/// An address that may belong to the mesh is not connected to in plaintext.
#[tokio::test]
async fn an_address_of_the_mesh_that_leads_to_no_pod_is_an_error() {
    for host in ["10.0.0.9", "10.96.0.9"] {
        let error = resolved(None, host, 9000).await.expect_err(host);
        assert!(
            error.to_string().contains("leads to no ready pod"),
            "{error}"
        );
    }
    assert!(resolved(None, "web.empty.svc.invalid", 9000).await.is_err());
}
