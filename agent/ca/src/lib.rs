//! A certificate authority for clusters without Istio: serves Istio's protocol,
//! `istio.v1.auth.IstioCertificateService`, to node agents, sidecars and ztunnel.
//!
//! A caller is the pod that its service-account token is bound to ([`caller`]). It gets its own
//! account's identity, or, as a node's agent, that of a pod on its own node ([`issuance`],
//! [`pods`]), at most for the configured lifetime, and not more often than its share ([`rate_limit`]).
//! Each answer is in the audit log ([`audit`]). Callers verify the server by the authority's roots.
//!
//! Where tokens are checked by the API server, the CA's own account has to be allowed to `create`
//! `tokenreviews.authentication.k8s.io`; where the API server tells which pods run where, to `list`
//! and `watch` `pods` of all namespaces.

pub mod account;
pub mod audit;
pub mod caller;
pub mod issuance;
pub mod pods;
pub mod rate_limit;
mod serve;
pub mod server;
mod service;
#[cfg(test)]
mod tests;

pub use serve::{CaConfig, PodSource, TokenSource, run};
pub use service::{CertificateService, IssuanceRefusal, Lifetimes, RequestError};
