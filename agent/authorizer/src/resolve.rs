//! Where an authorizer is.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::answer::CheckError;
use crate::connection::is_same_endpoint;
use ambit_common::MeshClass;
use ambit_model::{Destination, Endpoint, ObjectName, ProviderService, Snapshot, Target};

/// Where a service is reached: the ready pods of a Service that the mesh knows, or what the system's
/// resolver says, as the mesh takes it.
///
/// # Errors
/// Where nobody knows the service, or it is an address of the mesh that leads to no pod.
pub async fn resolve(mesh: Arc<Snapshot>, service: &ProviderService) -> io::Result<Vec<Endpoint>> {
    let known = in_mesh(&mesh, service)?;
    if !known.is_empty() {
        return Ok(known.into_iter().map(Endpoint::Pod).collect());
    }
    let found = tokio::net::lookup_host((service.host.as_ref(), service.port)).await?;
    let (mut endpoints, mut problem) = (Vec::new(), None);
    for address in found {
        match at(&mesh, address) {
            Ok(some) => endpoints.extend(some),
            Err(error) => problem = Some(error),
        }
    }
    match problem {
        Some(error) if endpoints.is_empty() => Err(error),
        Some(_) | None => Ok(endpoints),
    }
}

/// The pods of the mesh that answer for a service, as far as that can be told without asking a
/// resolver.
///
/// # Errors
/// Where its Service has no such port, or its address leads to no pod.
pub fn in_mesh(mesh: &Snapshot, service: &ProviderService) -> io::Result<Vec<Target>> {
    if let Ok(address) = service.host.parse::<IpAddr>() {
        let endpoints = at(mesh, SocketAddr::new(address, service.port))?;
        let pods = endpoints.into_iter().filter_map(|endpoint| match endpoint {
            Endpoint::Pod(target) => Some(target),
            Endpoint::Outside(_) => None,
        });
        return Ok(pods.collect());
    }
    let Some(name) = service_name(service) else {
        return Ok(Vec::new());
    };
    match mesh.service(&name, service.port) {
        // None where the mesh does not know them: pods on the node's network, or what is outside.
        Destination::Service { endpoints, .. } => {
            Ok(endpoints.into_iter().filter_map(pod).collect())
        }
        Destination::NoSuchPort(name) => {
            let problem = format!("Service {name} has no TCP port {}", service.port);
            Err(io::Error::new(io::ErrorKind::NotFound, problem))
        }
        Destination::Unexplained(_)
        | Destination::Workload(_)
        | Destination::Ambiguous(_)
        | Destination::Unknown => Ok(Vec::new()),
    }
}

/// What an address means, as for any connection of the pod.
fn at(mesh: &Snapshot, address: SocketAddr) -> io::Result<Vec<Endpoint>> {
    let nowhere = |problem: String| Err(io::Error::new(io::ErrorKind::NotFound, problem));
    match (mesh.destination(address), mesh.mesh_class(address.ip())) {
        (Destination::Workload(target), _) => Ok(vec![Endpoint::Pod(target)]),
        (Destination::Service { endpoints, .. }, _) if !endpoints.is_empty() => Ok(endpoints),
        (_, Some(MeshClass::Proxy)) => nowhere(format!(
            "{address} is of the mesh, and leads to no ready pod"
        )),
        (_, Some(MeshClass::NotOptedIn | MeshClass::Outside) | None) => {
            Ok(vec![Endpoint::Outside(address)])
        }
    }
}

fn pod(endpoint: Endpoint) -> Option<Target> {
    match endpoint {
        Endpoint::Pod(target) => Some(target),
        Endpoint::Outside(_) => None,
    }
}

/// The Service of a host `NAME.NAMESPACE.svc[.DOMAIN]`, or of `NAMESPACE/NAME`.
fn service_name(service: &ProviderService) -> Option<ObjectName> {
    let mut labels = service.host.split('.');
    match (labels.next(), labels.next(), labels.next()) {
        (Some(name), Some(namespace), Some("svc")) => Some(ObjectName::new(namespace, name)),
        (Some(name), None, None) => {
            let namespace = service.namespace.as_ref()?;
            Some(ObjectName::new(Arc::clone(namespace), name))
        }
        _ => None,
    }
}

/// Asks at one endpoint after another, `preferred` first, until one can be reached.
///
/// # Errors
/// The last one's, or that there is none.
pub(super) async fn in_turn<T>(
    service: &ProviderService,
    endpoints: &[Endpoint],
    preferred: Option<Endpoint>,
    ask: impl AsyncFn(&Endpoint) -> Result<T, CheckError>,
) -> Result<T, CheckError> {
    let mut order: Vec<&Endpoint> = endpoints.iter().collect();
    let first = preferred.and_then(|preferred| {
        order
            .iter()
            .position(|one| is_same_endpoint(one, &preferred))
    });
    let first = first.unwrap_or_else(|| rand::random_range(0..order.len().max(1)));
    order.rotate_left(first);
    let mut failure = CheckError::NotFound {
        service: service.clone(),
        source: io::Error::new(io::ErrorKind::NotFound, "it has no address"),
    };
    for endpoint in order {
        match ask(endpoint).await {
            Err(error @ CheckError::Unreachable { .. }) => failure = error,
            other => return other,
        }
    }
    Err(failure)
}
