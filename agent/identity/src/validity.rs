//! When certificates are valid, and how far two clocks may be apart.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, UnixTime};

use ambit_authority::Validity;

/// How far ahead a certificate's first moment may be: the clock of whoever signed it, or this one,
/// is off by so much. There is no such allowance at its end: an expired certificate is refused.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Whether a certificate is valid at a given time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Timeliness {
    /// By more than [`CLOCK_SKEW`].
    TooEarly,
    Valid,
    Expired,
}

impl Timeliness {
    /// Compares a validity with the time `now`.
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

/// The moment at which a chain is verified: now, or the first moment at which all of it is valid
/// where that is at most [`CLOCK_SKEW`] ahead. What has expired by now has expired then.
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

/// A moment as TLS has it.
pub(super) fn unix_time(moment: SystemTime) -> UnixTime {
    let since = moment.duration_since(UNIX_EPOCH);
    UnixTime::since_unix_epoch(since.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allowance_is_bounded_and_only_at_the_beginning() {
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
