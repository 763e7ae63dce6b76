//! Certificates: who issues them, how they are renewed, and how a peer's is verified.
//!
//! Keys are made on the node and are only ever in memory.

mod anchors;
mod answer;
mod bundle_file;
mod condition;
mod crypto;
mod embedded;
mod handshake;
mod held;
mod issued;
mod istio_ca;
mod keeper;
mod manager;
mod moment;
mod peer;
mod provider;
mod schedule;
mod state;
#[cfg(test)]
mod tests;
mod tls;
mod trust;
mod usage;
mod validity;
mod verify;

pub use anchors::{BundleError, TrustAnchors};
pub use answer::IssuedCertificateError;
pub use bundle_file::BundleFileError;
pub use condition::CertificateState;
pub use embedded::EmbeddedCa;
pub use handshake::{ClientTls, HandshakeError, PeerConnectError, ServerTls, VerifiedPeer};
pub use held::CertificateUnavailable;
pub use issued::IssuedCertificate;
pub use istio_ca::{CaAddress, CaAddressError, IstioCa, IstioCaConfig};
pub use manager::{Identities, PresentedChain, WorkloadCertificates};
pub use peer::{CertificateNameError, PeerIdentityError, TrustPolicy, peer_identity};
pub use provider::{CertificateProvider, IssueFailure, IssueFuture};
pub use state::{CertificateInfo, CertificateSummary, ChainCertificate, NodeCertificateState};
pub use usage::CertificateUsageError;
pub use validity::CLOCK_SKEW;
