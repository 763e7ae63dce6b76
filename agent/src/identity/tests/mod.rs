//! Handshakes with certificates of every kind, and the renewal of certificates.

mod handshake;
mod renewal;

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::provider::IssuedCertificate;

const HOUR: Duration = Duration::from_secs(3600);

/// A root of its own, that signs whatever it is given.
struct Root {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Root {
    fn make() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// A certificate with these URI names, valid from and until these moments.
    fn sign(&self, uris: &[&str], validity: [SystemTime; 2]) -> IssuedCertificate {
        let names = uris
            .iter()
            .map(|&uri| SanType::URI(uri.try_into().unwrap()));
        self.sign_names(names.collect(), validity)
    }

    fn sign_names(&self, names: Vec<SanType>, validity: [SystemTime; 2]) -> IssuedCertificate {
        let [not_before, not_after] = validity;
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        IssuedCertificate {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            not_before,
            not_after,
            serial: "01".to_owned(),
        }
    }
}

fn current() -> [SystemTime; 2] {
    let now = SystemTime::now();
    [now - HOUR, now + HOUR]
}
