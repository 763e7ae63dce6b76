//! The certificate authority: its files, and what it signs. It does not use the network.
//!
//! Its files are in Istio's `cacerts` layout, a directory or a mounted Secret:
//!
//! | file | holds |
//! |---|---|
//! | `ca-cert.pem` | the signing certificate: a root, or an intermediate |
//! | `ca-key.pem` | its key: PKCS#8, SEC1 or PKCS#1, not encrypted |
//! | `cert-chain.pem` | the certificates from the signing one up; may be absent if a root signed it |
//! | `root-cert.pem` | the roots that peers' certificates must lead to; several while one replaces
//! another |

mod authority;
mod chain;
mod error;
mod files;
mod follow;
mod issue;
mod make;
mod pem;
mod subject_key;
#[cfg(test)]
mod tests;

pub use authority::CertificateAuthority;
pub use chain::Validity;
pub use error::{CaCertificateFlaw, CaFilesError};
pub use files::{CA_FILES, ensure_creatable};
pub use follow::AuthorityFiles;
pub use issue::{IssueError, MIN_LIFETIME, SignedCertificate};
pub use make::{
    INTERMEDIATE_LIFETIME, ROOT_LIFETIME, check_open_or_make_root, make_intermediate, make_root,
    open_or_make_root,
};
pub use pem::encode as encode_pem;
pub use subject_key::{CsrError, SubjectKey};
