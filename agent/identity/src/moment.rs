//! Moments of the wall clock, as operators read them.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment in RFC 3339, whole seconds in UTC.
pub(super) fn rfc3339(moment: SystemTime) -> String {
    let seconds = i64::try_from(seconds(moment)).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(
        |_| format!("{seconds} s after 1970"),
        |moment| moment.to_string(),
    )
}

/// Seconds since 1970; 0 for what was before.
pub(super) fn seconds(moment: SystemTime) -> u64 {
    moment
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
