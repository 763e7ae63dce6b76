//! What an authority issues.

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate with its key, as it came. Nothing that it says has been checked.
#[derive(Debug)]
pub struct IssuedCertificate {
    /// Leaf first, up to and without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}
