//! Finds the endpoints of an authorizer.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::answer::CheckError;
use crate::connection::is_same_endpoint;
use ambit_common::MeshClass;
use ambit_model::{
    Destination, ObjectName, PodEndpoint, ProviderService, ServiceEndpoint, Snapshot,
};

/// Where a service can be reached: the ready pods of a Service of the mesh, or else what the system's
/// resolver returns, interpreted as the mesh interprets addresses.
///
/// # Errors
/// If the service is unknown, or has an address of the mesh that leads to no pod.
pub async fn resolve(
    mesh: Arc<Snapshot>,
    service: &ProviderService,
) -> io::Result<Vec<ServiceEndpoint>> {
    let known = in_mesh(&mesh, service)?;
    if !known.is_empty() {
        return Ok(known.into_iter().map(ServiceEndpoint::Pod).collect());
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

/// The pods of the mesh that serve a service, as far as this is known without asking a resolver.
///
/// # Errors
/// If the Service has no such port, or the address leads to no pod.
pub fn in_mesh(mesh: &Snapshot, service: &ProviderService) -> io::Result<Vec<PodEndpoint>> {
    if let Ok(address) = service.host.parse::<IpAddr>() {
        let endpoints = at(mesh, SocketAddr::new(address, service.port))?;
        let pods = endpoints.into_iter().filter_map(|endpoint| match endpoint {
            ServiceEndpoint::Pod(target) => Some(target),
            ServiceEndpoint::Outside(_) => None,
        });
        return Ok(pods.collect());
    }
    let Some(name) = service_name(service) else {
        return Ok(Vec::new());
    };
    match mesh.service(&name, service.port) {
        // Empty if the endpoints are pods on the node's network, or outside the mesh.
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

/// The endpoints behind an address, as for any connection of the pod.
fn at(mesh: &Snapshot, address: SocketAddr) -> io::Result<Vec<ServiceEndpoint>> {
    let nowhere = |problem: String| Err(io::Error::new(io::ErrorKind::NotFound, problem));
    match (mesh.destination(address), mesh.mesh_class(address.ip())) {
        (Destination::Workload(target), _) => Ok(vec![ServiceEndpoint::Pod(target)]),
        (Destination::Service { endpoints, .. }, _) if !endpoints.is_empty() => Ok(endpoints),
        (_, Some(MeshClass::Proxy)) => nowhere(format!(
            "{address} belongs to the mesh but leads to no ready pod"
        )),
        (_, Some(MeshClass::NotOptedIn | MeshClass::Outside) | None) => {
            Ok(vec![ServiceEndpoint::Outside(address)])
        }
    }
}

fn pod(endpoint: ServiceEndpoint) -> Option<PodEndpoint> {
    match endpoint {
        ServiceEndpoint::Pod(target) => Some(target),
        ServiceEndpoint::Outside(_) => None,
    }
}

/// The Service that a host `NAME.NAMESPACE.svc[.DOMAIN]` names, or `NAME` with a namespace.
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

/// Tries one endpoint after another until one can be reached: `preferred` first, or else a random one.
///
/// # Errors
/// The last endpoint's error, or that there are no endpoints.
pub(super) async fn in_turn<T>(
    service: &ProviderService,
    endpoints: &[ServiceEndpoint],
    preferred: Option<ServiceEndpoint>,
    ask: impl AsyncFn(&ServiceEndpoint) -> Result<T, CheckError>,
) -> Result<T, CheckError> {
    let mut order: Vec<&ServiceEndpoint> = endpoints.iter().collect();
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
