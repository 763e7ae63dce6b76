//! What a certificate has to be before it is used, whoever issued it.

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

/// A certificate may be valid for this long whatever lifetime was asked for: there are authorities
/// that know one lifetime only.
const LONG: Duration = Duration::from_secs(7 * 24 * 3600);

/// A certificate that is valid for this long is not too short, however long a lifetime was asked
/// for.
const SHORT: Duration = Duration::from_secs(60);

/// Why a certificate that came is not used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IssuedCertificateError {
    /// There is none.
    #[error("it has no certificate")]
    Empty,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// It is for another key than the one that was made for it.
    #[error("the certificate is for another key than the one that was sent")]
    OtherKey,
    /// It has no identity.
    #[error("the certificate {0}")]
    Name(#[from] CertificateNameError),
    /// It is for somebody else.
    #[error("the certificate is for {0}")]
    OtherIdentity(WorkloadIdentity),
    /// It is not for a workload's handshakes.
    #[error("the certificate is not for a workload: {0}")]
    Usage(#[from] CertificateUsageError),
    /// It has expired.
    #[error(
        "the certificate expired at {until}, and it is {now} here; see the clocks of this node and \
         of the CA"
    )]
    Expired {
        /// When, in RFC 3339.
        until: String,
        /// The time here.
        now: String,
    },
    /// It is not valid yet.
    #[error(
        "the certificate is not valid before {from}, and it is {now} here; see the clocks of this \
         node and of the CA"
    )]
    NotYet {
        /// From when, in RFC 3339.
        from: String,
        /// The time here.
        now: String,
    },
    /// It would have to be renewed at once.
    #[error("the certificate is valid for {0:?} only")]
    TooShort(Duration),
    /// It is valid for much longer than was asked for.
    #[error("the certificate is valid for {} hours, and {} were asked for", .got.as_secs() / 3600, .asked.as_secs() / 3600)]
    TooLong {
        /// How long.
        got: Duration,
        /// What was asked for.
        asked: Duration,
    },
    /// Peers would refuse it.
    #[error("the certificate does not verify by the mesh's roots: {0}")]
    Chain(String),
    /// It is not known which roots the mesh has.
    #[error("it does not come with the mesh's roots, and no others are known")]
    NoRoots,
}

/// What was asked for, and when.
pub(super) struct IssueRequest<'a> {
    pub(super) identity: &'a WorkloadIdentity,
    pub(super) lifetime: Duration,
    pub(super) now: SystemTime,
}

/// A certificate that is for its question, and what it says.
#[derive(Debug)]
pub(super) struct CheckedCertificate {
    pub(super) issued: IssuedCertificate,
    pub(super) validity: Validity,
    /// In hexadecimal digits.
    pub(super) serial: String,
    /// The distinguished name.
    pub(super) issuer: String,
}

/// Takes a certificate that is what was asked for, by the roots of the mesh.
///
/// # Errors
/// [`IssuedCertificateError`]: the first thing that is not as it should be.
pub(super) fn check_issued(
    issued: IssuedCertificate,
    question: &IssueRequest<'_>,
    verifier: &PeerVerifier,
) -> Result<CheckedCertificate, IssuedCertificateError> {
    ensure_usable(&issued, question, verifier)?;
    let parsed = parse(issued.chain.first().ok_or(IssuedCertificateError::Empty)?)?;
    let (validity, serial) = (Validity::of(&parsed), serial(&parsed));
    let issuer = parsed.issuer().to_string();
    Ok(CheckedCertificate {
        validity,
        serial,
        issuer,
        issued,
    })
}

/// Holds a certificate against what was asked for, and against the roots of the mesh.
///
/// # Errors
/// [`IssuedCertificateError`]: the first thing that is not as it should be.
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

/// Verifies a chain, leaf first, as peers will, in both roles.
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

/// A certificate with its key, as it came. Nothing that it says has been checked.
#[derive(Debug)]
pub struct IssuedCertificate {
    /// Leaf first, up to and without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}
