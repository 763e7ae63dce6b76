//! Opens an authority: reads its files, and finds whether they fit together.

use std::path::Path;

use rcgen::{Issuer, KeyPair, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate::{CaCertificate, flawed};
use super::error::{CaFilesError, invalid};
use super::files::{CERTIFICATE, CHAIN, CaFileSet, KEY, ROOTS};
use super::path::SigningPath;
use super::signer::CertificateAuthority;
use super::{pem, trial};
use ambit_model::TrustDomain;

impl CertificateAuthority {
    /// Reads and checks an authority's files.
    ///
    /// # Errors
    /// [`CaFilesError`] unless everything that it signs now will be accepted by whoever trusts
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
        trial::run(&authority).map_err(|reason| CaFilesError::Refused {
            directory: files.directory.clone(),
            reason,
        })?;
        Ok(authority)
    }
}

/// Decodes the certificate that signs.
pub(super) fn signing_certificate(text: &[u8]) -> Result<CertificateDer<'static>, String> {
    pem::only(text).map_err(|reason| {
        format!(
            "{reason}; it must hold the signing certificate alone, and cert-chain.pem those that \
             are above it"
        )
    })
}

/// Decodes the key that signs.
pub(super) fn signing_key(text: &[u8], path: &Path) -> Result<KeyPair, CaFilesError> {
    let unfit = |reason: &dyn std::fmt::Display| {
        invalid(
            path,
            format!(
                "{reason}; it must hold one unencrypted key of ECDSA P-256 or P-384, Ed25519, or \
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
        return Err(unfit(&"its key is of another kind"));
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

/// The bundle, if all of it are roots.
fn trusted<'a>(
    bundle: Vec<CaCertificate<'a>>,
    path: &Path,
) -> Result<Vec<CaCertificate<'a>>, CaFilesError> {
    if bundle.is_empty() {
        return Err(invalid(path, "it holds no certificate, and needs a root"));
    }
    for root in &bundle {
        root.check_root().map_err(flawed(path, root))?;
    }
    Ok(bundle)
}

/// The roots of a bundle that have not expired, each once: verifiers do not look at a root's time.
fn in_force(bundle: &[CaCertificate<'_>]) -> Vec<CertificateDer<'static>> {
    let mut roots: Vec<CertificateDer<'static>> = Vec::new();
    for root in bundle {
        if root.has_expired() {
            tracing::warn!(
                root = root.subject(),
                "a root has expired, and is not trusted"
            );
        } else if !roots.contains(root.der) {
            roots.push(root.der.clone());
        }
    }
    roots
}
