use std::sync::Arc;

use super::*;
use crate::model::testing::{parts, pod, service};
use crate::model::{Snapshot, TargetPort, Workload};

/// A mesh with the Service `tools/web`, whose port 9000 is port 8080 of its pods.
fn mesh() -> Arc<Snapshot> {
    let mut mesh = parts();
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
    ];
    Arc::new(Snapshot::new(mesh))
}

async fn resolved(namespace: Option<&str>, host: &str, port: u16) -> io::Result<Vec<String>> {
    let mesh = mesh();
    let resolver = MeshResolver::new(|| Arc::clone(&mesh));
    let service = ProviderService {
        namespace: namespace.map(Into::into),
        host: host.into(),
        port,
    };
    let addresses = resolver.resolve(&service).await?;
    Ok(addresses.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn a_service_of_the_mesh_is_its_ready_pods() {
    for (namespace, host) in [
        (None, "web.tools.svc.cluster.local"),
        (Some("other"), "web.tools.svc"),
        (Some("tools"), "web"),
    ] {
        let found = resolved(namespace, host, 9000).await.expect(host);
        assert_eq!(found, ["10.0.0.1:8080", "[fd00::2]:8080"], "{host}");
    }
}

#[tokio::test]
async fn a_port_that_the_service_does_not_have_is_not_looked_for_elsewhere() {
    let error = resolved(None, "web.tools.svc.cluster.local", 80).await;
    let error = error.expect_err("no such port");
    assert_eq!(error.to_string(), "Service tools/web has no TCP port 80");
}

#[tokio::test]
async fn everything_else_is_the_systems() {
    let found = resolved(None, "127.0.0.1", 9000).await.expect("an address");
    assert_eq!(found, ["127.0.0.1:9000"]);
    assert!(resolved(None, "web.empty.svc.invalid", 9000).await.is_err());
}
