//! Certificates that an attacker might have.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use crate::agent::ca_directory;
use crate::lab::Lab;

const HOUR: Duration = Duration::from_secs(3600);

/// The signer of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signer {
    /// The lab's own CA.
    Mesh,
    /// A CA that nothing in the lab trusts, with the same name and key identifier.
    Stranger,
}

/// When a certificate is valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Validity {
    /// Now.
    Current,
    /// Until an hour ago.
    Expired,
    /// From an hour on.
    Future,
}

/// The contents of a certificate.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Its URI subject alternative names.
    pub uris: &'a [&'a str],
    /// Its DNS subject alternative names.
    pub names: &'a [&'a str],
    /// Its signer.
    pub signer: Signer,
    /// When it is valid.
    pub validity: Validity,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl<'a> Claim<'a> {
    /// The contents of a workload's own certificate.
    pub fn of(uris: &'a [&'a str]) -> Self {
        Self {
            uris,
            names: &[],
            signer: Signer::Mesh,
            validity: Validity::Current,
        }
    }

    /// Makes the certificate. An agent must have run before, because it makes the CA.
    ///
    /// # Errors
    ///
    /// If the CA's files do not exist, or the claim cannot be encoded.
    pub fn certify(&self, lab: &Lab) -> Result<Credentials> {
        let key = KeyPair::generate()?;
        let certificate = self.parameters()?.signed_by(&key, &self.issuer(lab)?)?;
        let directory = tempfile::tempdir_in(lab.directory())?.keep();
        let credentials = Credentials {
            certificate: directory.join("certificate.pem"),
            key: directory.join("key.pem"),
        };
        fs::write(&credentials.certificate, certificate.pem())?;
        fs::write(&credentials.key, key.serialize_pem())?;
        Ok(credentials)
    }

    fn parameters(&self) -> Result<CertificateParams> {
        let mut params = CertificateParams::default();
        for uri in self.uris {
            params
                .subject_alt_names
                .push(SanType::URI((*uri).try_into()?));
        }
        for name in self.names {
            params
                .subject_alt_names
                .push(SanType::DnsName((*name).try_into()?));
        }
        let now = SystemTime::now();
        let (from, until) = match self.validity {
            Validity::Current => (now - HOUR, now + HOUR),
            Validity::Expired => (now - 2 * HOUR, now - HOUR),
            Validity::Future => (now + HOUR, now + 2 * HOUR),
        };
        params.not_before = from.into();
        params.not_after = until.into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        Ok(params)
    }

    fn issuer(&self, lab: &Lab) -> Result<Issuer<'static, KeyPair>> {
        let directory = ca_directory(lab);
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let key = match self.signer {
            Signer::Mesh => KeyPair::from_pem(&read("ca-key.pem")?)?,
            Signer::Stranger => KeyPair::generate()?,
        };
        Ok(Issuer::from_ca_cert_pem(&read("ca-cert.pem")?, key)?)
    }
}
