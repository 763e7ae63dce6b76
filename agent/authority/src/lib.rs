//! The certificate authority: what signs. It neither talks to a network nor knows the agent.
//!
//! Its files are in Istio's `cacerts` layout, a directory or a mounted Secret:
//!
//! | file | holds |
//! |---|---|
//! | `ca-cert.pem` | the signing certificate: a root, or an intermediate |
//! | `ca-key.pem` | its key: PKCS#8, SEC1 or PKCS#1, not encrypted |
//! | `cert-chain.pem` | from the signing certificate up; may be absent where a root signed it |
//! | `root-cert.pem` | the roots that peers have to lead to; several while one replaces another |

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
