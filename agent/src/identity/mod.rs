//! Certificates: who issues them, how they are renewed, and how a peer's is verified.
//!
//! Keys are made on the node and are only ever in memory.

mod embedded;
mod manager;
mod provider;
#[cfg(test)]
mod tests;
mod tls;
mod verify;

pub use embedded::EmbeddedCa;
pub use manager::{CertificateInfo, CertificateUnavailable, Identities, WorkloadCertificates};
pub use provider::{CertificateProvider, IssueError, IssueFuture, IssuedCertificate};
pub use verify::{PeerIdentityError, TrustPolicy, explain_handshake, peer_identity};
