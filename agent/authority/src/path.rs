//! The way from the signing certificate up to a root.

use rustls::pki_types::CertificateDer;

use super::certificate::{CaCertificate, Validity, flawed};
use super::error::CaFilesError;
use super::files::{CERTIFICATE, CHAIN, CaFileSet, ROOTS};
use ambit_model::TrustDomain;

/// The signing certificate, the intermediates above it, and the root that they lead to.
#[derive(Debug)]
pub(super) struct SigningPath<'a> {
    /// Empty where the signing certificate is the root.
    below_root: Vec<CaCertificate<'a>>,
    root: CaCertificate<'a>,
}

impl<'a> SigningPath<'a> {
    /// Follows the chain as it is ordered, and checks each certificate and each signature.
    pub(super) fn find(
        files: &CaFileSet,
        signing: CaCertificate<'a>,
        mut chain: Vec<CaCertificate<'a>>,
        roots: &[CaCertificate<'a>],
        trust_domain: &TrustDomain,
    ) -> Result<Self, CaFilesError> {
        let is_root = |one: &CaCertificate<'_>| roots.iter().any(|root| root.der == one.der);
        // Istio's own tools write the chain with both of its ends.
        if chain.first().is_some_and(|first| first.der == signing.der) {
            chain.remove(0);
        }
        chain.pop_if(|last| is_root(last));
        let signing_file = files.path(CERTIFICATE);
        signing
            .check_signs(0, trust_domain)
            .map_err(flawed(&signing_file, &signing))?;
        if chain.is_empty() && is_root(&signing) {
            return Ok(Self {
                below_root: Vec::new(),
                root: signing,
            });
        }
        let mut below_root = vec![signing];
        for next in chain {
            below_root.push(above(files, &below_root, next, trust_domain)?);
        }
        let root = root_of(files, &below_root, roots, trust_domain)?;
        Ok(Self { below_root, root })
    }

    pub(super) fn intermediates(&self) -> Vec<CertificateDer<'static>> {
        let intermediates = self.below_root.iter();
        intermediates.map(|one| one.der.clone()).collect()
    }

    pub(super) fn root(&self) -> &CertificateDer<'static> {
        self.root.der
    }

    /// When all of it is valid.
    pub(super) fn validity(&self) -> Validity {
        let intermediates = self.below_root.iter().map(CaCertificate::validity);
        intermediates.fold(self.root.validity(), Validity::and)
    }
}

/// The next certificate of the chain, if it signed the last one so far and may do so.
fn above<'a>(
    files: &CaFileSet,
    below: &[CaCertificate<'a>],
    next: CaCertificate<'a>,
    trust_domain: &TrustDomain,
) -> Result<CaCertificate<'a>, CaFilesError> {
    let path = files.path(CHAIN);
    if let Some(last) = below.last().filter(|last| !last.is_signed_by(&next)) {
        return Err(CaFilesError::Chain {
            path,
            subject: last.subject(),
            next: next.subject(),
        });
    }
    next.check_signs(count(below), trust_domain)
        .map_err(flawed(&path, &next))?;
    Ok(next)
}

/// A root that signed the last of the chain and may do so: the bundle may have several of one name
/// and key, of which an older one has expired.
fn root_of<'a>(
    files: &CaFileSet,
    below: &[CaCertificate<'a>],
    roots: &[CaCertificate<'a>],
    trust_domain: &TrustDomain,
) -> Result<CaCertificate<'a>, CaFilesError> {
    let path = files.path(ROOTS);
    let last = below.last();
    let mut error = CaFilesError::OtherRoot {
        path: path.clone(),
        subject: last.map(CaCertificate::subject).unwrap_or_default(),
    };
    let signed = |root: &&CaCertificate<'a>| last.is_some_and(|last| last.is_signed_by(root));
    for root in roots.iter().filter(signed) {
        match root.check_signs(count(below), trust_domain) {
            Ok(()) => return Ok(root.clone()),
            Err(flaw) => error = flawed(&path, root)(flaw),
        }
    }
    Err(error)
}

/// How many CAs there are below the next one.
fn count(below: &[CaCertificate<'_>]) -> u32 {
    u32::try_from(below.len()).unwrap_or(u32::MAX)
}
