//! What the programs report to the agent: a counter for each outcome, and each denial with its reason.
//!
//! Denials go through one ring buffer. Each pod has a share of it, and within a pod's share each source
//! address has a share.

use ambit_common::{
    Address, Counter, DenialCounts, DenialEvent, FourTuple, Hook, IdentityId, NO_ALTERNATIVE,
    NetnsCookie, PolicySetId, Reason,
};
use aya_ebpf::helpers::bpf_ktime_get_ns;

use crate::maps::{COUNTS, EVENT_SHARES, EVENTS};
use crate::pods;

const SECOND_NS: u64 = 1_000_000_000;

/// Counts an outcome.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTS.get_ptr_mut(counter as u32) {
        // SAFETY: the value belongs to this CPU. If one program interrupts another on the same CPU, one
        // count may be lost, and nothing else happens.
        unsafe { *value += 1 };
    }
}

/// A denial to report. [`report`] adds the time.
pub struct DenialReport {
    /// Where it was decided.
    pub hook: Hook,
    /// Why the connection was refused.
    pub reason: Reason,
    /// The network namespace of the pod that was called, or whose process dialled.
    pub netns: NetnsCookie,
    /// The connection; its client is unspecified if a connect was refused.
    pub connection: FourTuple,
    /// The caller's identity, if it has proved one.
    pub identity: IdentityId,
    /// The policy set that decided, if one did.
    pub policy_set: PolicySetId,
    /// The alternative that decided, or [`NO_ALTERNATIVE`].
    pub alternative: u32,
}

impl DenialReport {
    /// A denial that no policy caused.
    #[inline(always)]
    pub fn without_policy(
        hook: Hook,
        reason: Reason,
        netns: NetnsCookie,
        connection: FourTuple,
    ) -> Self {
        Self {
            hook,
            reason,
            netns,
            connection,
            identity: IdentityId::NONE,
            policy_set: PolicySetId::NONE,
            alternative: NO_ALTERNATIVE,
        }
    }
}

/// Reports a denial to the agent. A denial is dropped, and counted as such, if its source has used up its
/// part of the pod's share or if the buffer is full.
#[inline(always)]
pub fn report(denial: &DenialReport) {
    let now = now_ns();
    if !within_share(denial.netns, denial.connection.client.address, now) {
        count(Counter::EventLimited);
        return;
    }
    let event = DenialEvent {
        at_ns: now,
        netns: denial.netns,
        connection: denial.connection,
        identity: denial.identity,
        policy_set: denial.policy_set,
        alternative: denial.alternative,
        hook: denial.hook as u8,
        reason: denial.reason as u8,
        zero: 0,
    };
    if EVENTS.output(event, 0).is_err() {
        count(Counter::EventLost);
    }
}

/// Returns the time in nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Takes one denial from the source's part of the pod's share, if any is left. Two CPUs may both take the
/// last one: the limit need not be exact.
#[inline(always)]
fn within_share(netns: NetnsCookie, source: Address, now: u64) -> bool {
    let Some(share) = pods::slot(netns).and_then(|slot| EVENT_SHARES.get_ptr_mut(slot.0)) else {
        return false;
    };
    // SAFETY: a map value is valid while the program runs. Races are harmless, see above.
    let share = unsafe { &mut *share };
    if now - share.since_ns >= SECOND_NS {
        share.since_ns = now;
        share.reported = 0;
    }
    let Some(counts) = DenialCounts::from_bits(share.reported).with(source, share.since_ns) else {
        return false;
    };
    share.reported = counts.bits();
    true
}
