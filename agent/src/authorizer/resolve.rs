//! Where an authorizer is.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;

use super::error::CheckError;
use crate::model::{Destination, ObjectName, ProviderService, Snapshot};

/// Finds the addresses of authorizers.
pub trait Resolve {
    /// The addresses at which a service is reached; none where nothing is ready.
    ///
    /// # Errors
    /// Where nobody knows the service.
    fn resolve<'a>(
        &'a self,
        service: &'a ProviderService,
    ) -> LocalBoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

/// Finds the ready pods of a Service that the mesh knows, and asks the system's resolver for
/// everything else.
pub struct MeshResolver<F> {
    mesh: F,
}

impl<F: Fn() -> Arc<Snapshot>> MeshResolver<F> {
    /// A resolver that looks at the mesh as `mesh` gives it.
    pub fn new(mesh: F) -> Self {
        Self { mesh }
    }
}

impl<F: Fn() -> Arc<Snapshot>> Resolve for MeshResolver<F> {
    fn resolve<'a>(
        &'a self,
        service: &'a ProviderService,
    ) -> LocalBoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        let known = in_mesh(&(self.mesh)(), service);
        Box::pin(async move {
            let known = known?;
            if !known.is_empty() {
                return Ok(known);
            }
            let found = tokio::net::lookup_host((service.host.as_ref(), service.port)).await?;
            Ok(found.collect())
        })
    }
}

/// The ready pods of the Service that `service` names; none where the mesh has no such Service, or
/// does not know its endpoints (no selector, or pods on the node's network).
fn in_mesh(mesh: &Snapshot, service: &ProviderService) -> io::Result<Vec<SocketAddr>> {
    let Some(name) = service_name(service) else {
        return Ok(Vec::new());
    };
    match mesh.service(&name, service.port) {
        Destination::Service { endpoints, .. } => {
            Ok(endpoints.iter().map(|endpoint| endpoint.address).collect())
        }
        Destination::NoSuchPort(name) => {
            let problem = format!("Service {name} has no TCP port {}", service.port);
            Err(io::Error::new(io::ErrorKind::NotFound, problem))
        }
        Destination::Workload(_) | Destination::Ambiguous(_) | Destination::Unknown => {
            Ok(Vec::new())
        }
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

/// Asks at one address after another, `preferred` first, until one can be reached.
///
/// # Errors
/// The last one's, or that there is none.
pub(super) async fn in_turn<T>(
    service: &ProviderService,
    addresses: &[SocketAddr],
    preferred: Option<SocketAddr>,
    ask: impl AsyncFn(SocketAddr) -> Result<T, CheckError>,
) -> Result<T, CheckError> {
    let mut order = addresses.to_vec();
    let first = preferred.and_then(|preferred| order.iter().position(|a| *a == preferred));
    let first = first.unwrap_or_else(|| rand::random_range(0..order.len().max(1)));
    order.rotate_left(first);
    let mut failure = CheckError::NotFound {
        service: service.clone(),
        source: io::Error::new(io::ErrorKind::NotFound, "it has no address"),
    };
    for address in order {
        match ask(address).await {
            Err(error @ CheckError::Unreachable { .. }) => failure = error,
            other => return other,
        }
    }
    Err(failure)
}
