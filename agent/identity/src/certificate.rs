//! What a certificate says: when it is valid, what it may be used for, and which identity it names.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use ambit_authority::Validity;
use ambit_model::{IdentityError, WorkloadIdentity};

/// How far in the future a certificate's `notBefore` may lie, because the signer's clock or this one
/// may be off. There is no such tolerance at the end: an expired certificate is refused.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Whether a certificate is valid at a given time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Timeliness {
    /// Not valid for at least another [`CLOCK_SKEW`].
    TooEarly,
    Valid,
    Expired,
}

impl Timeliness {
    /// Compares a validity with the time `now`. The first [`CLOCK_SKEW`] before it count as valid.
    pub(super) fn of(validity: Validity, now: SystemTime) -> Self {
        if now + CLOCK_SKEW < validity.from {
            Self::TooEarly
        } else if now >= validity.until {
            Self::Expired
        } else {
            Self::Valid
        }
    }
}

/// The time to verify a chain at: now, or the first time at which all of it is valid if that is at most
/// [`CLOCK_SKEW`] ahead. A certificate that has expired by now has expired at that time too.
pub(super) fn verified_at<'a>(
    chain: impl IntoIterator<Item = &'a CertificateDer<'a>>,
    now: UnixTime,
) -> UnixTime {
    let parsed = chain.into_iter().filter_map(|certificate| {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        u64::try_from(parsed.validity().not_before.timestamp()).ok()
    });
    let latest = parsed.max().unwrap_or(0);
    let ahead = latest.saturating_sub(now.as_secs());
    if (1..=CLOCK_SKEW.as_secs()).contains(&ahead) {
        return UnixTime::since_unix_epoch(Duration::from_secs(latest));
    }
    now
}

/// Converts a time to the form that rustls uses. Times before 1970 become 1970.
pub(super) fn unix_time(moment: SystemTime) -> UnixTime {
    let since = moment.duration_since(UNIX_EPOCH);
    UnixTime::since_unix_epoch(since.unwrap_or_default())
}

/// Why a certificate cannot be a workload's (SPIFFE X.509-SVID, section 4).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CertificateUsageError {
    /// It belongs to a CA.
    #[error("it is a CA's own")]
    Authority,
    /// Its key usage includes keyCertSign or cRLSign.
    #[error("its key usage lets it sign for a CA")]
    Signs,
    /// Its key usage lacks digitalSignature, which a TLS handshake needs.
    #[error("its key usage does not have digitalSignature")]
    NoSignature,
    /// An extension cannot be decoded.
    #[error("its usage cannot be read: {0}")]
    Unreadable(String),
}

/// Checks that a leaf certificate may represent a workload in a handshake, as client or as server. Its
/// extended key usage is checked against the role when its chain is verified.
///
/// # Errors
/// [`CertificateUsageError`].
pub(super) fn ensure_workload(leaf: &X509Certificate<'_>) -> Result<(), CertificateUsageError> {
    let unreadable =
        |error: x509_parser::error::X509Error| CertificateUsageError::Unreadable(error.to_string());
    if let Some(constraints) = leaf.basic_constraints().map_err(unreadable)?
        && constraints.value.ca
    {
        return Err(CertificateUsageError::Authority);
    }
    let usage = leaf.key_usage().map_err(unreadable)?;
    match usage.map(|usage| usage.value) {
        Some(usage) if usage.key_cert_sign() || usage.crl_sign() => {
            Err(CertificateUsageError::Signs)
        }
        Some(usage) if usage.digital_signature() => Ok(()),
        Some(_) | None => Err(CertificateUsageError::NoSignature),
    }
}

/// Formats a time as RFC 3339, in UTC and whole seconds.
pub(super) fn rfc3339(moment: SystemTime) -> String {
    let seconds = i64::try_from(seconds(moment)).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(
        |_| format!("{seconds} s after 1970"),
        |moment| moment.to_string(),
    )
}

/// Seconds since 1970. Times before that give 0.
pub(super) fn seconds(moment: SystemTime) -> u64 {
    moment
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Why a certificate yields no identity. Displays as a predicate, without a subject.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CertificateNameError {
    /// It cannot be decoded.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// It does not have exactly one URI name.
    #[error("has {0} URI names; a workload's has exactly one")]
    NotOneUri(usize),
    /// Its URI name is not a workload's SPIFFE ID.
    #[error("does not name a workload: {0}")]
    Identity(#[from] IdentityError),
}

/// Decodes a certificate.
pub(super) fn parse<'a>(
    certificate: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, CertificateNameError> {
    x509_parser::parse_x509_certificate(certificate)
        .map(|(_, parsed)| parsed)
        .map_err(|error| CertificateNameError::Unreadable(error.to_string()))
}

/// The identity that a certificate names in its only URI name.
pub(super) fn name_of(
    leaf: &X509Certificate<'_>,
) -> Result<WorkloadIdentity, CertificateNameError> {
    let names = leaf
        .subject_alternative_name()
        .map_err(|error| CertificateNameError::Unreadable(error.to_string()))?
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let uris: Vec<&str> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris.as_slice() {
        [uri] => Ok(WorkloadIdentity::from_spiffe_id(uri)?),
        other => Err(CertificateNameError::NotOneUri(other.len())),
    }
}

/// A certificate's serial number, in hexadecimal digits.
pub(super) fn serial(certificate: &X509Certificate<'_>) -> String {
    let digits = certificate.raw_serial().iter();
    digits.map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_skew_is_tolerated_before_the_start_only_and_up_to_a_bound() {
        let second = Duration::from_secs(1);
        let from = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let validity = Validity {
            from,
            until: from + 100 * second,
        };
        for (now, expected) in [
            (from - CLOCK_SKEW - second, Timeliness::TooEarly),
            (from - CLOCK_SKEW, Timeliness::Valid),
            (from, Timeliness::Valid),
            (validity.until - second, Timeliness::Valid),
            (validity.until, Timeliness::Expired),
        ] {
            assert_eq!(Timeliness::of(validity, now), expected, "{now:?}");
        }
    }
}
