//! Handshakes with certificates of every kind, answers of CAs, and renewal.

mod ca;
mod clock;
mod exchange;
mod handshake;
mod introduction;
mod issued;
mod renewal;
mod roots;
mod schedule;

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::issued::IssuedCertificate;
use crate::roots::TrustAnchors;
use crate::verify::TrustPolicy;
use ambit_model::{TrustDomain, WorkloadIdentity};

pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// How long a test waits before it gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A root that signs whatever it is given.
pub(super) struct Root {
    issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) pem: String,
}

impl Root {
    pub(super) fn make() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            pem: certificate.pem(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    pub(super) fn anchors(&self) -> TrustAnchors {
        TrustAnchors::new([self.certificate.clone()])
    }

    /// A certificate with these URI names and this validity.
    fn sign(&self, uris: &[&str], validity: [SystemTime; 2]) -> IssuedCertificate {
        self.sign_params(params(uris, validity))
    }

    fn sign_params(&self, params: CertificateParams) -> IssuedCertificate {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        IssuedCertificate {
            chain: vec![certificate.der().clone()],
            key: private(&key),
        }
    }

    /// An intermediate CA's certificate, and a leaf that it signs.
    fn sign_through(
        &self,
        middle: [SystemTime; 2],
        uris: &[&str],
        leaf: [SystemTime; 2],
    ) -> (CertificateDer<'static>, CertificateDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut between = CertificateParams::default();
        [between.not_before, between.not_after] = middle.map(Into::into);
        between.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        between
            .distinguished_name
            .push(rcgen::DnType::CommonName, "between");
        let certificate = between.signed_by(&key, &self.issuer).unwrap();
        let issuer = Issuer::new(between, key);
        let own = KeyPair::generate().unwrap();
        let leaf = params(uris, leaf).signed_by(&own, &issuer).unwrap();
        (certificate.der().clone(), leaf.der().clone())
    }

    /// A certificate for somebody else's key.
    pub(super) fn certify(
        &self,
        params: &CertificateParams,
        key: &impl rcgen::PublicKeyData,
    ) -> String {
        params.signed_by(key, &self.issuer).unwrap().pem()
    }
}

/// The parameters of a workload's certificate.
pub(super) fn params(uris: &[&str], validity: [SystemTime; 2]) -> CertificateParams {
    let names = uris
        .iter()
        .map(|&uri| SanType::URI(uri.try_into().unwrap()));
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.collect();
    [params.not_before, params.not_after] = validity.map(Into::into);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()))
}

pub(super) fn current() -> [SystemTime; 2] {
    let now = SystemTime::now();
    [now - HOUR, now + HOUR]
}

pub(super) fn trust(aliases: &[&str]) -> TrustPolicy {
    let domain = |name: &str| TrustDomain::new(name).unwrap();
    TrustPolicy {
        trust_domain: domain("cluster.local"),
        aliases: aliases.iter().map(|name| domain(name)).collect(),
    }
}

pub(super) fn identity(account: &str) -> WorkloadIdentity {
    let domain = TrustDomain::new("cluster.local").unwrap();
    WorkloadIdentity::new(domain, "prod", account).unwrap()
}

pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect(what);
}
