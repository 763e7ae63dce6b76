//! Denials, reported to the agent through one ring buffer with a share for each pod, and in it one
//! for each source.

use ambit_common::{
    Address, Connection, Counter, DenialEvent, EventCounts, Hook, IdentityId, NO_ALTERNATIVE,
    NetnsCookie, PolicySetId, Reason,
};
use aya_ebpf::helpers::bpf_ktime_get_ns;

use crate::count::count;
use crate::maps::{EVENT_SHARES, EVENTS};
use crate::pods;

const SECOND_NS: u64 = 1_000_000_000;

/// A denial, less what [`report`] adds itself.
pub struct Denial {
    /// Which hook decided.
    pub hook: Hook,
    /// Why.
    pub reason: Reason,
    /// The pod that is protected, or whose process dialled.
    pub netns: NetnsCookie,
    /// The connection.
    pub connection: Connection,
    /// The caller's identity.
    pub identity: IdentityId,
    /// The policy set that decided.
    pub policy_set: PolicySetId,
    /// The alternative that decided.
    pub alternative: u32,
}

impl Denial {
    /// A denial for which no policy is to blame.
    #[inline(always)]
    pub fn without_policy(
        hook: Hook,
        reason: Reason,
        netns: NetnsCookie,
        connection: Connection,
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

/// Reports a denial to the agent, unless its source has used up its part of the pod's share or the
/// buffer is full; both are counted.
#[inline(always)]
pub fn report(denial: &Denial) {
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

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Two CPUs may both take a source's last event: the limit is a guard, not an account.
#[inline(always)]
fn within_share(netns: NetnsCookie, source: Address, now: u64) -> bool {
    let Some(share) = pods::slot(netns).and_then(|slot| EVENT_SHARES.get_ptr_mut(slot.0)) else {
        return false;
    };
    // SAFETY: the map's value, valid while the program runs; races are harmless, see above.
    let share = unsafe { &mut *share };
    if now - share.since_ns >= SECOND_NS {
        share.since_ns = now;
        share.reported = 0;
    }
    let Some(counts) = EventCounts::from_bits(share.reported).with(source, share.since_ns) else {
        return false;
    };
    share.reported = counts.bits();
    true
}
