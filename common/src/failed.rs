use crate::{AddressPort, NetnsCookie, assert_size};

/// A destination whose endpoints have all just failed for a pod: the key of `FAILED`. The value is when that was,
/// in nanoseconds of `CLOCK_MONOTONIC`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct FailedKey {
    /// The network namespace of the pod that dialled.
    pub netns: NetnsCookie,
    /// What it dialled.
    pub dialled: AddressPort,
    /// Zero; part of the key.
    pub zero: u32,
}
assert_size!(FailedKey, 32);

impl FailedKey {
    /// Joins a pod and a destination.
    #[inline(always)]
    pub const fn new(netns: NetnsCookie, dialled: AddressPort) -> Self {
        Self {
            netns,
            dialled,
            zero: 0,
        }
    }
}

/// How long after a failure connects to the same destination are refused.
pub const FAILED_FOR_NS: u64 = 1_000_000_000;

/// Whether connects are refused because of a failure. A time in the future does not count, so that no entry holds
/// for longer than [`FAILED_FOR_NS`], whatever was written.
#[inline(always)]
pub const fn has_just_failed(failed_at_ns: u64, now_ns: u64) -> bool {
    now_ns.wrapping_sub(failed_at_ns) < FAILED_FOR_NS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_counts_for_a_second_and_never_from_the_future() {
        let at = 5 * FAILED_FOR_NS;
        assert!(has_just_failed(at, at));
        assert!(has_just_failed(at, at + FAILED_FOR_NS - 1));
        assert!(!has_just_failed(at, at + FAILED_FOR_NS));
        assert!(!has_just_failed(at, at - 1));
        assert!(!has_just_failed(u64::MAX, at));
        assert!(!has_just_failed(0, at));
    }
}
