//! A certificate authority for clusters without Istio. It serves Istio's protocol,
//! `istio.v1.auth.IstioCertificateService`, to node agents, sidecars and ztunnel.
//!
//! A caller is the pod that its service account token is bound to ([`caller`]). It gets its own
//! account's identity or, as a node's agent, that of a pod on its own node ([`issuance`], [`pods`]).
//! Certificates are valid for the configured time at most, and each caller has a rate limit
//! ([`rate_limit`]). Each call is in the audit log ([`audit`]). Callers verify the server with the CA's
//! own roots.
//!
//! If the API server checks tokens, the CA's account must be allowed to `create`
//! `tokenreviews.authentication.k8s.io`. If the API server says which pods run where, it must be
//! allowed to `list` and `watch` `pods` of all namespaces.

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

pub use serve::{CaServerConfig, PodSource, TokenSource, run};
pub use service::{CertificateService, IssuanceRefusal, Lifetimes, RequestError};
