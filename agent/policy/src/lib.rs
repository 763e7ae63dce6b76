//! The meaning of Istio's policy objects: parse, attach, evaluate, compile, explain.
//!
//! The crate is pure: no I/O, no async, no clock. The kernel's tables and the proxy's evaluator are
//! made from the same [`WorkloadPolicies`], so that a verdict has one meaning. The [`manual`] says
//! what that meaning is.

mod attachment;
mod authorization;
mod compile;
mod decision;
mod evaluate;
pub mod explain;
mod findings;
mod index;
mod jwks;
#[doc = include_str!("../MANUAL.md")]
pub mod manual {}
mod matcher;
mod normalise;
mod notes;
mod path;
mod peer_authentication;
mod policy_condition;
mod reader;
mod request;
mod request_authentication;
mod request_principal;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod workload_policies;

use std::sync::Arc;

pub use compile::CompiledSet;
pub use decision::{
    ConnectionAttributes, ConnectionVerdict, Decider, Denial, Layer, Permit, RequestPermit,
};
pub use evaluate::{Approvals, Consultation};
pub use findings::{Finding, Severity};
pub use index::PolicyIndex;
pub use jwks::{Algorithm, Curve, Jwk, Jwks, JwksError, KeyMaterial};
pub use normalise::{BadPath, normalise_path};
pub use notes::Note;
pub use policy_condition::{PolicyCondition, PolicyScope, PolicyState};
pub use request::{RequestAttributes, VerifiedToken, forwarded_for};
pub use request_authentication::{
    ClaimHeader, HttpUrl, HttpUrlError, JwtRule, KeySource, KeyUrl, RedactedUrl,
    RequestAuthentication, TokenLocation, TokenPresence,
};
pub use workload_policies::WorkloadPolicies;

use ambit_model::Snapshot;

/// The mesh and the meaning of its policies, at one moment.
#[derive(Debug)]
pub struct MeshView {
    /// The mesh.
    pub snapshot: Arc<Snapshot>,
    /// Its policies.
    pub policies: PolicyIndex,
}

impl MeshView {
    /// The view of a snapshot.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        let policies = PolicyIndex::build(&snapshot);
        Self { snapshot, policies }
    }
}
