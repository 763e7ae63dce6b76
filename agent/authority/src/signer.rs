//! An authority that is ready to sign.

use std::time::SystemTime;

use rcgen::{Issuer, KeyPair};
use rustls::pki_types::CertificateDer;

use super::certificate::Validity;
use ambit_model::TrustDomain;

/// A certificate authority whose key, certificates and roots have been found to fit together.
#[derive(Debug)]
pub struct CertificateAuthority {
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) trust_domain: TrustDomain,
    /// The signing certificate and what is between it and its root; empty where it is the root.
    pub(super) intermediates: Vec<CertificateDer<'static>>,
    /// When the signing certificate and everything above it are valid.
    pub(super) validity: Validity,
    /// What the signing certificate's chain leads to.
    pub(super) root: CertificateDer<'static>,
    pub(super) roots: Vec<CertificateDer<'static>>,
}

impl CertificateAuthority {
    /// The roots that peers' certificates have to lead to, without those that have expired.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The root among [`CertificateAuthority::roots`] that its own certificates lead to.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// When the first of the signing certificate and what is above it ends to be valid: nothing that
    /// it signs is valid for longer.
    pub fn valid_until(&self) -> SystemTime {
        self.validity.until
    }

    /// The trust domain of the identities that it certifies.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }
}
