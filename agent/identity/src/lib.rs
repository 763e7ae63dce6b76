//! Workload certificates: obtaining them from a CA, renewing them, and verifying those of peers.
//!
//! Keys are generated on the node and never leave its memory.

mod certificate;
mod embedded;
mod identities;
mod introduction;
mod issued;
mod istio_ca;
mod managed;
mod provider;
mod roots;
mod schedule;
mod status;
#[cfg(test)]
mod tests;
mod tls;
mod verify;

pub use certificate::{CLOCK_SKEW, CertificateNameError, CertificateUsageError};
pub use embedded::EmbeddedCa;
pub use identities::{Identities, PresentedChain, WorkloadCertificates};
pub use introduction::IntroductionError;
pub use issued::{IssuedCertificate, IssuedCertificateError};
pub use istio_ca::{CaAddress, CaAddressError, IstioCa, IstioCaConfig};
pub use managed::CertificateUnavailable;
pub use provider::{CertificateProvider, IssueFailure, IssueFuture};
pub use roots::{BundleError, BundleFileError, TrustAnchors};
pub use status::{
    CertificateInfo, CertificateState, CertificateSummary, ChainCertificate, NodeCertificateState,
};
pub use tls::{
    ClientTls, HandshakeError, PeerConnectError, SecuredSocket, ServerTls, VerifiedPeer,
};
pub use verify::{PeerIdentityError, TrustPolicy, peer_identity};
