//! The certificate authority: opened from its files, checked, and ready to sign.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{Issuer, KeyPair, PublicKeyData};
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};

use crate::chain::{CaCertificate, SigningPath, Validity, flawed};
use crate::error::{CaFilesError, invalid};
use crate::files::{CERTIFICATE, CHAIN, CaFileSet, KEY, ROOTS};
use crate::issue::MIN_LIFETIME;
use crate::pem;
use crate::subject_key::SubjectKey;
use ambit_model::{TrustDomain, WorkloadIdentity};

impl CertificateAuthority {
    /// Reads and checks a CA's files.
    ///
    /// # Errors
    /// [`CaFilesError`], unless everything that the CA signs now will be accepted by those who trust
    /// its roots.
    pub fn open(directory: &Path, trust_domain: &TrustDomain) -> Result<Self, CaFilesError> {
        Self::from_files(&CaFileSet::read(directory)?, trust_domain)
    }

    pub(super) fn from_files(
        files: &CaFileSet,
        trust_domain: &TrustDomain,
    ) -> Result<Self, CaFilesError> {
        let path = files.path(CERTIFICATE);
        let unfit = |reason: String| invalid(&path, reason);
        let key = signing_key(&files.key, &files.path(KEY))?;
        let der = signing_certificate(&files.certificate).map_err(unfit)?;
        let signing = CaCertificate::read(&der).map_err(unfit)?;
        if signing.key() != key.subject_public_key_info() {
            return Err(CaFilesError::KeyOfAnother {
                key: files.path(KEY),
                certificate: path,
            });
        }
        signing.check_name().map_err(flawed(&path, &signing))?;
        let chain = all(
            files.chain.as_deref().unwrap_or_default(),
            &files.path(CHAIN),
        )?;
        let roots = all(&files.roots, &files.path(ROOTS))?;
        let chain = read(&chain, &files.path(CHAIN))?;
        let bundle = trusted(read(&roots, &files.path(ROOTS))?, &files.path(ROOTS))?;
        let signing_path = SigningPath::find(files, signing, chain, &bundle, trust_domain)?;
        let authority = Self {
            issuer: Issuer::from_ca_cert_der(&der, key).map_err(|e| unfit(e.to_string()))?,
            trust_domain: trust_domain.clone(),
            intermediates: signing_path.intermediates(),
            validity: signing_path.validity(),
            root: signing_path.root().clone(),
            roots: in_force(&bundle),
        };
        sign_on_trial(&authority).map_err(|reason| CaFilesError::Refused {
            directory: files.directory.clone(),
            reason,
        })?;
        Ok(authority)
    }
}

/// Decodes the signing certificate.
pub(super) fn signing_certificate(text: &[u8]) -> Result<CertificateDer<'static>, String> {
    pem::only(text).map_err(|reason| {
        format!(
            "{reason}; it must contain the signing certificate alone, and cert-chain.pem the \
             ones above it"
        )
    })
}

/// Decodes the signing key.
pub(super) fn signing_key(text: &[u8], path: &Path) -> Result<KeyPair, CaFilesError> {
    let unfit = |reason: &dyn std::fmt::Display| {
        invalid(
            path,
            format!(
                "{reason}; it must contain one unencrypted key of ECDSA P-256 or P-384, Ed25519, or \
                 RSA of at least 2048 bits"
            ),
        )
    };
    let der: PrivateKeyDer<'_> = pem::only(text).map_err(|reason| unfit(&reason))?;
    let key = KeyPair::try_from(&der).map_err(|error| unfit(&error))?;
    let usable = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ];
    if !usable.contains(&key.algorithm()) {
        return Err(unfit(&"its key is of an unsupported kind"));
    }
    Ok(key)
}

fn all(text: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, CaFilesError> {
    pem::all(text).map_err(|reason| invalid(path, reason))
}

fn read<'a>(
    certificates: &'a [CertificateDer<'static>],
    path: &Path,
) -> Result<Vec<CaCertificate<'a>>, CaFilesError> {
    let read = certificates.iter().enumerate().map(|(index, der)| {
        CaCertificate::read(der)
            .map_err(|reason| invalid(path, format!("certificate {}: {reason}", index + 1)))
    });
    read.collect()
}

/// Checks that all certificates of the bundle are roots.
fn trusted<'a>(
    bundle: Vec<CaCertificate<'a>>,
    path: &Path,
) -> Result<Vec<CaCertificate<'a>>, CaFilesError> {
    if bundle.is_empty() {
        return Err(invalid(
            path,
            "it contains no certificate; it needs at least one root",
        ));
    }
    for root in &bundle {
        root.check_root().map_err(flawed(path, root))?;
    }
    Ok(bundle)
}

/// The roots that have not expired, each one once. Verifiers ignore the validity of a root.
fn in_force(bundle: &[CaCertificate<'_>]) -> Vec<CertificateDer<'static>> {
    let mut roots: Vec<CertificateDer<'static>> = Vec::new();
    for root in bundle {
        if root.has_expired() {
            tracing::warn!(
                root = root.subject(),
                "a root has expired and is not trusted"
            );
        } else if !roots.contains(root.der) {
            roots.push(root.der.clone());
        }
    }
    roots
}

/// A certificate authority whose key, certificates and roots fit together.
#[derive(Debug)]
pub struct CertificateAuthority {
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) trust_domain: TrustDomain,
    /// The signing certificate and those between it and the root. Empty if it is the root.
    pub(super) intermediates: Vec<CertificateDer<'static>>,
    /// The time in which the signing certificate and all above it are valid.
    pub(super) validity: Validity,
    /// The root that the signing certificate leads to.
    pub(super) root: CertificateDer<'static>,
    pub(super) roots: Vec<CertificateDer<'static>>,
}

impl CertificateAuthority {
    /// The roots that peers' certificates must lead to. Those that have expired are left out.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The one of [`CertificateAuthority::roots`] that this CA's own certificates lead to.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// When the first of the signing certificate and those above it expires. Nothing that the CA signs
    /// is valid for longer.
    pub fn valid_until(&self) -> SystemTime {
        self.validity.until
    }

    /// The trust domain whose identities the CA certifies.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }
}

/// Signs a certificate for a workload that does not exist, and verifies it as a peer would. This finds problems of encodings,
/// constraints and signatures that the other checks do not know.
fn sign_on_trial(authority: &CertificateAuthority) -> Result<(), String> {
    let key = KeyPair::generate().map_err(text)?;
    let domain = authority.trust_domain().clone();
    let identity = WorkloadIdentity::new(domain, "trial", "trial").map_err(text)?;
    let issued = authority
        .issue_workload(&identity, &SubjectKey::of(&key), MIN_LIFETIME)
        .map_err(text)?;
    let (leaf, intermediates) = issued.chain.split_first().ok_or("it is empty")?;
    let mut roots = RootCertStore::empty();
    roots.add(authority.root().clone()).map_err(text)?;
    let (roots, provider) = (Arc::new(roots), Arc::new(aws_lc_rs::default_provider()));
    let algorithms = provider.signature_verification_algorithms;
    let now = UnixTime::now();
    let parsed = ParsedCertificate::try_from(leaf).map_err(text)?;
    verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, algorithms.all)
        .map_err(text)?;
    WebPkiClientVerifier::builder_with_provider(roots, provider)
        .build()
        .map_err(text)?
        .verify_client_cert(leaf, intermediates, now)
        .map_err(text)?;
    Ok(())
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
