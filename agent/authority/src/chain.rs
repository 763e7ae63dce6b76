//! A CA's own certificates: whether each may sign, and the path from the signing certificate to a root.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::time::ASN1Time;

use crate::error::{CaCertificateFlaw, CaFilesError};
use crate::files::{CERTIFICATE, CHAIN, CaFileSet, ROOTS};
use ambit_model::TrustDomain;

/// A CA's own certificate, decoded.
#[derive(Clone, Debug)]
pub(super) struct CaCertificate<'a> {
    pub(super) der: &'a CertificateDer<'static>,
    parsed: X509Certificate<'a>,
}

/// When a certificate is valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    /// `notBefore`.
    pub from: SystemTime,
    /// `notAfter`.
    pub until: SystemTime,
}

impl Validity {
    /// The validity that a certificate states. Times before 1970 count as 1970.
    pub fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self {
            from: time(validity.not_before),
            until: time(validity.not_after),
        }
    }

    /// The time in which both are valid.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            from: self.from.max(other.from),
            until: self.until.min(other.until),
        }
    }
}

impl<'a> CaCertificate<'a> {
    pub(super) fn read(der: &'a CertificateDer<'static>) -> Result<Self, String> {
        match x509_parser::parse_x509_certificate(der) {
            Ok(([], parsed)) => Ok(Self { der, parsed }),
            Ok(_) => Err("something follows the certificate in its block".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Its subject for messages, or its serial number if the subject is empty.
    pub(super) fn subject(&self) -> String {
        match self.parsed.subject().to_string() {
            empty if empty.is_empty() => format!("serial {}", self.parsed.raw_serial_as_string()),
            subject => subject,
        }
    }

    /// The `SubjectPublicKeyInfo` in DER.
    pub(super) fn key(&self) -> &[u8] {
        self.parsed.public_key().raw
    }

    pub(super) fn validity(&self) -> Validity {
        Validity::of(&self.parsed)
    }

    /// Whether its issuer's name is its own name. If it is trusted too, it is a root.
    pub(super) fn is_self_issued(&self) -> bool {
        self.parsed.issuer().as_raw() == self.parsed.subject().as_raw()
    }

    /// Whether it was signed by another certificate's key, and names that certificate as its issuer.
    pub(super) fn is_signed_by(&self, other: &CaCertificate<'_>) -> bool {
        let key = Some(other.parsed.public_key());
        self.parsed.issuer().as_raw() == other.parsed.subject().as_raw()
            && self.parsed.verify_signature(key).is_ok()
    }

    pub(super) fn has_expired(&self) -> bool {
        self.parsed.validity().not_after < ASN1Time::now()
    }

    /// Checks that it can be a trusted root, whether or not it is valid yet.
    pub(super) fn check_root(&self) -> Result<(), CaCertificateFlaw> {
        if !self.is_self_issued() {
            return Err(CaCertificateFlaw::NotSelfIssued(
                self.parsed.issuer().to_string(),
            ));
        }
        self.check_authority(0)
    }

    /// Checks that it may sign at this time, with `below` CAs between it and the workloads.
    pub(super) fn check_signs(
        &self,
        below: u32,
        trust_domain: &TrustDomain,
    ) -> Result<(), CaCertificateFlaw> {
        let validity = self.parsed.validity();
        let now = ASN1Time::now();
        if validity.not_after < now {
            return Err(CaCertificateFlaw::Expired(validity.not_after.to_string()));
        }
        if now < validity.not_before {
            return Err(CaCertificateFlaw::NotYetValid(
                validity.not_before.to_string(),
            ));
        }
        self.check_authority(below)?;
        self.check_trust_domain(trust_domain)
    }

    /// Checks that its name can be an issuer's: the certificates that it signs must repeat the name
    /// exactly, and rcgen writes each attribute only once.
    pub(super) fn check_name(&self) -> Result<(), CaCertificateFlaw> {
        let mut types = BTreeSet::new();
        for part in self.parsed.subject().iter_rdn() {
            let mut attributes = part.iter();
            match (attributes.next(), attributes.next()) {
                (Some(only), None) if types.insert(only.attr_type().as_bytes()) => {}
                _ => return Err(CaCertificateFlaw::Name),
            }
        }
        Ok(())
    }

    fn check_authority(&self, below: u32) -> Result<(), CaCertificateFlaw> {
        let constraints = self.parsed.basic_constraints().map_err(unreadable)?;
        let constraints = constraints.map(|extension| extension.value);
        let Some(constraints) = constraints.filter(|constraints| constraints.ca) else {
            return Err(CaCertificateFlaw::NoCa);
        };
        let usage = self.parsed.key_usage().map_err(unreadable)?;
        if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
            return Err(CaCertificateFlaw::NoCertSign);
        }
        match constraints.path_len_constraint {
            Some(allowed) if allowed < below => {
                Err(CaCertificateFlaw::PathLength { allowed, below })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Checks that its URI names, if it has any, are the trust domain (SPIFFE X.509-SVID, section 3.1).
    fn check_trust_domain(&self, expected: &TrustDomain) -> Result<(), CaCertificateFlaw> {
        let names = self.parsed.subject_alternative_name().map_err(unreadable)?;
        let names = names.iter().flat_map(|names| &names.value.general_names);
        let own = format!("spiffe://{expected}");
        for name in names {
            match name {
                GeneralName::URI(uri) if *uri != own => {
                    return Err(CaCertificateFlaw::TrustDomain {
                        found: (*uri).to_owned(),
                        expected: expected.clone(),
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn time(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn unreadable(error: impl ToString) -> CaCertificateFlaw {
    CaCertificateFlaw::Unreadable(error.to_string())
}

/// Returns a function that wraps a flaw of a certificate into an error.
pub(super) fn flawed<'a>(
    path: &'a Path,
    certificate: &'a CaCertificate<'_>,
) -> impl Fn(CaCertificateFlaw) -> CaFilesError + 'a {
    move |flaw| CaFilesError::Certificate {
        path: path.to_owned(),
        subject: certificate.subject(),
        flaw,
    }
}

/// The signing certificate, the intermediates above it, and the root that they lead to.
#[derive(Debug)]
pub(super) struct SigningPath<'a> {
    /// Empty if the signing certificate is the root.
    below_root: Vec<CaCertificate<'a>>,
    root: CaCertificate<'a>,
}

impl<'a> SigningPath<'a> {
    /// Follows the chain in the order of its file, and checks each certificate and each signature.
    pub(super) fn find(
        files: &CaFileSet,
        signing: CaCertificate<'a>,
        mut chain: Vec<CaCertificate<'a>>,
        roots: &[CaCertificate<'a>],
        trust_domain: &TrustDomain,
    ) -> Result<Self, CaFilesError> {
        let is_root = |one: &CaCertificate<'_>| roots.iter().any(|root| root.der == one.der);
        // Istio's own tools include both ends in the chain.
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

    /// The time in which all of it is valid.
    pub(super) fn validity(&self) -> Validity {
        let intermediates = self.below_root.iter().map(CaCertificate::validity);
        intermediates.fold(self.root.validity(), Validity::and)
    }
}

/// Checks that the next certificate signed the last one of the path so far, and may do so.
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

/// A root that signed the last certificate of the path, and may do so. The bundle may contain several
/// of one name and key, for example an expired one.
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

/// How many CAs are below the next one.
fn count(below: &[CaCertificate<'_>]) -> u32 {
    u32::try_from(below.len()).unwrap_or(u32::MAX)
}
