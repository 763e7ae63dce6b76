//! The certificate authority under attack and misuse.

mod csr;
mod follow;
mod issue;
mod open;
mod openssl;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;

use super::{CaFilesError, CertificateAuthority, encode_pem};
use ambit_model::{TrustDomain, WorkloadIdentity};

const HOUR: Duration = Duration::from_secs(3600);

fn domain() -> TrustDomain {
    TrustDomain::new("cluster.local").unwrap()
}

fn identity() -> WorkloadIdentity {
    WorkloadIdentity::new(domain(), "web", "frontend").unwrap()
}

/// A CA whose parameters a test controls.
struct Ca {
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

impl Ca {
    /// The usual parameters: valid since one hour ago, for a day.
    fn params(name: &str) -> CertificateParams {
        let now = SystemTime::now();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = (now - HOUR).into();
        params.not_after = (now + 24 * HOUR).into();
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    fn root(params: &CertificateParams, key: KeyPair) -> Self {
        let certificate = params.self_signed(&key).unwrap().into();
        Self { key, certificate }
    }

    fn signs(&self, params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap().into();
        Self { key, certificate }
    }

    fn named(name: &str) -> Self {
        Self::root(&Self::params(name), KeyPair::generate().unwrap())
    }
}

/// A CA's files.
struct Files {
    certificate: String,
    key: String,
    chain: Option<String>,
    roots: String,
}

impl Files {
    /// The files of a signing CA, with the CAs between it and its root, and its roots.
    fn of(signing: &Ca, between: &[&Ca], roots: &[&Ca]) -> Self {
        Self {
            certificate: pem(&[signing]),
            key: signing.key.serialize_pem(),
            chain: (!between.is_empty()).then(|| pem(between)),
            roots: pem(roots),
        }
    }

    fn write(&self, directory: &Path) {
        let write = |name: &str, contents: &str| fs::write(directory.join(name), contents).unwrap();
        write("ca-cert.pem", &self.certificate);
        write("ca-key.pem", &self.key);
        write("root-cert.pem", &self.roots);
        if let Some(chain) = &self.chain {
            write("cert-chain.pem", chain);
        }
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(directory.join("ca-key.pem"), private).unwrap();
    }

    fn open(&self) -> Result<CertificateAuthority, CaFilesError> {
        let directory = tempfile::tempdir().unwrap();
        self.write(directory.path());
        CertificateAuthority::open(directory.path(), &domain())
    }
}

fn pem(cas: &[&Ca]) -> String {
    let certificates: Vec<_> = cas.iter().map(|ca| ca.certificate.clone()).collect();
    encode_pem(&certificates)
}
