//! Looks up whether a network namespace belongs to an enrolled pod, and the pod's entry.

use ambit_common::{NetnsCookie, PodEntry, PodSlot};

use crate::maps::{POD_ENTRIES, POD_TURNS, PODS};

/// What the maps say about a network namespace.
pub enum PodLookup {
    /// It does not belong to an enrolled pod.
    NotEnrolled,
    /// It belongs to an enrolled pod, which may be closed or served.
    Enrolled(&'static PodEntry),
    /// It belongs to an enrolled pod whose entry is missing, which is a fault of the agent. Callers treat
    /// the pod as closed.
    EntryMissing,
}

/// Looks a pod up. The entry does not change while the program runs.
#[inline(always)]
pub fn find(netns: NetnsCookie) -> PodLookup {
    let Some(slot) = slot(netns) else {
        return PodLookup::NotEnrolled;
    };
    match entry(slot) {
        Some(pod) if pod.netns == netns => PodLookup::Enrolled(pod),
        _ => PodLookup::EntryMissing,
    }
}

/// Returns a pod's slot, or `None` if the pod is not enrolled.
#[inline(always)]
pub fn slot(netns: NetnsCookie) -> Option<PodSlot> {
    // SAFETY: the value does not change while its key is in the map. If the key has just been removed,
    // the memory may already belong to another pod, whose entry has another cookie.
    unsafe { PODS.get(netns) }.copied()
}

/// The address of the copy depends on the turn, so the processor cannot read the copy before the turn.
#[inline(always)]
fn entry(slot: PodSlot) -> Option<&'static PodEntry> {
    let turn = POD_TURNS.get_ptr(slot.0)?;
    // SAFETY: a map value is valid while the program runs. It is read once because it may change.
    let turn = unsafe { turn.read_volatile() };
    POD_ENTRIES.get(slot.copy(turn))
}
