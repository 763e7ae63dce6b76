//! Finds authorizers that would be asked about their own checks, in an endless loop, before they are asked.
//!
//! An authorizer may itself be a pod of the mesh. A check is then a request to that pod, and the pod's own
//! policies may name an authorizer for it. If that leads back to the first authorizer, no check would ever
//! be answered. Agents whose models differ for a moment may miss a loop; then the limits on the time and
//! number of checks end it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::Request;

use ambit_authorizer::{CheckedRequest, check_head, in_mesh};
use ambit_model::{
    ExtensionProvider, Membership, ObjectName, PodEndpoint, ProviderService, Workload,
};
use ambit_policy::normalise_path;
use ambit_policy::{
    ConnectionAttributes, Consultation, MeshView, RequestAttributes, WorkloadPolicies,
    forwarded_for,
};

/// Returns the pod whose policies would have `provider` asked again if `asker`'s agent asked it about a
/// request, or about a connection that is not HTTP.
pub(crate) fn asked_again(
    view: &MeshView,
    asker: &Workload,
    provider: &ExtensionProvider,
    request: Option<&CheckedRequest<'_>>,
) -> Option<ObjectName> {
    let mut search = Search {
        view,
        sought: &provider.name,
        seen: Vec::new(),
    };
    search.follow(asker, provider, request)
}

struct Search<'a> {
    view: &'a MeshView,
    sought: &'a str,
    /// Providers that have been followed.
    seen: Vec<Arc<str>>,
}

impl Search<'_> {
    fn follow(
        &mut self,
        asker: &Workload,
        provider: &ExtensionProvider,
        request: Option<&CheckedRequest<'_>>,
    ) -> Option<ObjectName> {
        let check = check_head(provider, request)?;
        self.endpoints(&provider.service)
            .iter()
            .find_map(|endpoint| self.asked_by(endpoint, asker, &check))
    }

    /// Returns the endpoints that are opted in; of those with the same policies, one.
    fn endpoints(&self, service: &ProviderService) -> Vec<PodEndpoint> {
        let mut endpoints = in_mesh(&self.view.snapshot, service).unwrap_or_default();
        endpoints.retain(|one| one.workload.membership == Membership::OptedIn);
        let attached = |one: &PodEndpoint| {
            (
                one.workload.name.namespace.clone(),
                one.workload.labels.clone(),
            )
        };
        endpoints.dedup_by_key(|one| attached(one));
        endpoints
    }

    fn asked_by(
        &mut self,
        endpoint: &PodEndpoint,
        asker: &Workload,
        check: &Request<()>,
    ) -> Option<ObjectName> {
        let policies = self.view.policies.for_workload(&endpoint.workload);
        let is_request = policies.carries_http(endpoint.address.port());
        for consultation in self.consultations(&policies, endpoint, asker, check) {
            if *consultation.provider == *self.sought {
                return Some(endpoint.workload.name.clone());
            }
            if self.seen.contains(&consultation.provider) {
                continue;
            }
            self.seen.push(Arc::clone(&consultation.provider));
            let settings = self.view.snapshot.mesh_settings();
            if let Some(next) = settings.extension_provider(&consultation.provider) {
                let request = is_request.then(|| checked(check));
                let found = self.follow(&endpoint.workload, next, request.as_ref());
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }

    fn consultations(
        &self,
        policies: &WorkloadPolicies,
        endpoint: &PodEndpoint,
        asker: &Workload,
        check: &Request<()>,
    ) -> Vec<Consultation> {
        let connection = ConnectionAttributes {
            identity: Some(asker.identity.clone()),
            source: source(asker, endpoint.address),
            destination: endpoint.address,
        };
        match policies.carries_http(endpoint.address.port()) {
            true => policies.consultations_on_request(&connection, &self.attributes(check)),
            false => policies.consultations_on_opaque(&connection),
        }
    }

    fn attributes(&self, check: &Request<()>) -> RequestAttributes {
        let mode = self.view.snapshot.mesh_settings().path_normalization;
        let target = target(check);
        let target = normalise_path(mode, target).unwrap_or_else(|_| target.to_owned());
        RequestAttributes {
            method: check.method().to_string(),
            authority: authority(check).to_owned(),
            path: target.split('?').next().unwrap_or_default().to_owned(),
            path_and_query: target,
            forwarded_for: forwarded_for(check.headers()),
            headers: check.headers().clone(),
            token: None,
        }
    }
}

/// Returns the address from which the asker connects to an endpoint.
fn source(asker: &Workload, to: SocketAddr) -> IpAddr {
    let mut own = asker.addresses.iter();
    let own = own.find(|address| address.is_ipv4() == to.is_ipv4());
    own.copied().unwrap_or(to.ip())
}

fn checked(check: &Request<()>) -> CheckedRequest<'_> {
    CheckedRequest {
        id: "",
        method: check.method(),
        scheme: "http",
        authority: authority(check),
        path: target(check),
        headers: check.headers(),
        version: check.version(),
        body: None,
    }
}

fn target(check: &Request<()>) -> &str {
    check
        .uri()
        .path_and_query()
        .map_or("/", |target| target.as_str())
}

fn authority(check: &Request<()>) -> &str {
    let host = check.headers().get(http::header::HOST);
    host.and_then(|host| host.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
