//! Certificates as a CA issues them, and the checks that each must pass before it is used.

use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::X509Certificate;

use crate::certificate::{
    CertificateNameError, CertificateUsageError, Timeliness, ensure_workload, name_of, parse,
    rfc3339, serial, unix_time,
};
use crate::verify::PeerVerifier;
use ambit_authority::Validity;
use ambit_model::WorkloadIdentity;

/// A certificate may be valid for this long, whatever lifetime was requested: some CAs issue one
/// lifetime only.
const LONG: Duration = Duration::from_secs(7 * 24 * 3600);

/// A certificate that is valid for at least this long is not too short, whatever lifetime was
/// requested.
const SHORT: Duration = Duration::from_secs(60);

/// Why an issued certificate is not used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IssuedCertificateError {
    /// The answer contains no certificate.
    #[error("it has no certificate")]
    Empty,
    /// A certificate or its key cannot be decoded.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// The certificate is for a key other than the one in the request.
    #[error("the certificate is for another key than the one that was sent")]
    OtherKey,
    /// The certificate does not name an identity.
    #[error("the certificate {0}")]
    Name(#[from] CertificateNameError),
    /// The certificate is for a different identity.
    #[error("the certificate is for {0}")]
    OtherIdentity(WorkloadIdentity),
    /// The certificate's usages are not those of a workload.
    #[error("the certificate is not for a workload: {0}")]
    Usage(#[from] CertificateUsageError),
    /// It has expired.
    #[error(
        "the certificate expired at {until}, and the time here is {now}; check the clocks of this node and \
         of the CA"
    )]
    Expired {
        /// When it expired, in RFC 3339.
        until: String,
        /// This node's time, in RFC 3339.
        now: String,
    },
    /// It is not valid yet.
    #[error(
        "the certificate is not valid before {from}, and the time here is {now}; check the clocks of this \
         node and of the CA"
    )]
    NotYet {
        /// When it becomes valid, in RFC 3339.
        from: String,
        /// This node's time, in RFC 3339.
        now: String,
    },
    /// It would have to be renewed immediately.
    #[error("the certificate is valid for {0:?} only")]
    TooShort(Duration),
    /// It is valid for much longer than requested.
    #[error("the certificate is valid for {} hours, but {} were requested", .got.as_secs() / 3600, .asked.as_secs() / 3600)]
    TooLong {
        /// How long it is valid.
        got: Duration,
        /// The requested lifetime.
        asked: Duration,
    },
    /// It does not verify against the mesh's roots, so peers would refuse it.
    #[error("the certificate does not verify against the mesh's roots: {0}")]
    Chain(String),
    /// The mesh's roots are not known.
    #[error("the answer does not include the mesh's roots, and no others are known")]
    NoRoots,
}

/// What was requested, and the time to judge the answer at.
pub(super) struct IssueRequest<'a> {
    pub(super) identity: &'a WorkloadIdentity,
    pub(super) lifetime: Duration,
    pub(super) now: SystemTime,
}

/// A certificate that passed all checks, with the fields that are needed later.
#[derive(Debug)]
pub(super) struct CheckedCertificate {
    pub(super) issued: IssuedCertificate,
    pub(super) validity: Validity,
    /// The time in which the intermediates are valid, too.
    pub(super) chain_validity: Validity,
    /// The serial number, in hexadecimal digits.
    pub(super) serial: String,
    /// The issuer's distinguished name.
    pub(super) issuer: String,
}

/// Checks an issued certificate against its request and the mesh's roots, and takes it.
///
/// # Errors
/// [`IssuedCertificateError`]: the first check that fails.
pub(super) fn check_issued(
    issued: IssuedCertificate,
    question: &IssueRequest<'_>,
    verifier: &PeerVerifier,
) -> Result<CheckedCertificate, IssuedCertificateError> {
    ensure_usable(&issued, question, verifier)?;
    let parsed = parse(issued.chain.first().ok_or(IssuedCertificateError::Empty)?)?;
    let (validity, serial) = (Validity::of(&parsed), serial(&parsed));
    let issuer = parsed.issuer().to_string();
    let above = issued.chain.iter().skip(1);
    let chain_validity = above
        .filter_map(|certificate| Some(Validity::of(&parse(certificate).ok()?)))
        .fold(validity, Validity::and);
    Ok(CheckedCertificate {
        validity,
        chain_validity,
        serial,
        issuer,
        issued,
    })
}

/// Checks an issued certificate against its request and the mesh's roots.
///
/// # Errors
/// [`IssuedCertificateError`]: the first check that fails.
pub(super) fn ensure_usable(
    issued: &IssuedCertificate,
    question: &IssueRequest<'_>,
    verifier: &PeerVerifier,
) -> Result<(), IssuedCertificateError> {
    let parsed = parse(issued.chain.first().ok_or(IssuedCertificateError::Empty)?)?;
    ensure_key(&parsed, &issued.key)?;
    let found = name_of(&parsed)?;
    if found != *question.identity {
        return Err(IssuedCertificateError::OtherIdentity(found));
    }
    ensure_workload(&parsed)?;
    ensure_timely(Validity::of(&parsed), question)?;
    ensure_chain(&issued.chain, question.now, verifier)
}

fn ensure_key(
    leaf: &X509Certificate<'_>,
    key: &PrivateKeyDer<'_>,
) -> Result<(), IssuedCertificateError> {
    let unusable = |error: rustls::Error| IssuedCertificateError::Unreadable(error.to_string());
    let key = aws_lc_rs::sign::any_supported_type(key).map_err(unusable)?;
    match key.public_key() {
        Some(own) if own.as_ref() == leaf.public_key().raw => Ok(()),
        Some(_) | None => Err(IssuedCertificateError::OtherKey),
    }
}

fn ensure_timely(
    validity: Validity,
    question: &IssueRequest<'_>,
) -> Result<(), IssuedCertificateError> {
    let now = question.now;
    match Timeliness::of(validity, now) {
        Timeliness::Expired => {
            return Err(IssuedCertificateError::Expired {
                until: rfc3339(validity.until),
                now: rfc3339(now),
            });
        }
        Timeliness::TooEarly => {
            return Err(IssuedCertificateError::NotYet {
                from: rfc3339(validity.from),
                now: rfc3339(now),
            });
        }
        Timeliness::Valid => {}
    }
    let left = validity.until.duration_since(now).unwrap_or_default();
    let asked = question.lifetime;
    if left < SHORT.min(asked / 4) {
        return Err(IssuedCertificateError::TooShort(left));
    }
    if left > LONG.max(asked * 2) {
        return Err(IssuedCertificateError::TooLong { got: left, asked });
    }
    Ok(())
}

/// Verifies a chain, leaf first, as peers will do it, both as a server's and as a client's.
///
/// # Errors
/// [`IssuedCertificateError::Chain`].
pub(super) fn ensure_chain(
    chain: &[CertificateDer<'_>],
    now: SystemTime,
    verifier: &PeerVerifier,
) -> Result<(), IssuedCertificateError> {
    let (leaf, intermediates) = chain.split_first().ok_or(IssuedCertificateError::Empty)?;
    let now = unix_time(now);
    let verified = verifier
        .as_server(leaf, intermediates, now)
        .and_then(|()| verifier.as_client(leaf, intermediates, now));
    verified.map_err(|error| IssuedCertificateError::Chain(error.to_string()))
}

/// A certificate with its key, as received. None of its contents has been checked.
#[derive(Debug)]
pub struct IssuedCertificate {
    /// Leaf first, then the intermediates, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}
