//! Enrolled pods: whether a network namespace is one's, and its entry.

use ambit_common::{NetnsCookie, PodEntry, PodSlot};

use crate::maps::{POD_ENTRIES, POD_TURNS, PODS};

/// What the tables say of a network namespace.
pub enum Enrolment {
    /// It is not an enrolled pod's.
    None,
    /// It is an enrolled pod's.
    Pod(&'static PodEntry),
    /// It is an enrolled pod's, and its entry is not there: a fault of the agent. It is closed.
    Broken,
}

/// Looks a pod up. The entry stays as it is for as long as the program runs.
#[inline(always)]
pub fn find(netns: NetnsCookie) -> Enrolment {
    let Some(slot) = slot(netns) else {
        return Enrolment::None;
    };
    match entry(slot) {
        Some(pod) if pod.netns == netns => Enrolment::Pod(pod),
        _ => Enrolment::Broken,
    }
}

/// A pod's slot. `None`: it is not enrolled.
#[inline(always)]
pub fn slot(netns: NetnsCookie) -> Option<PodSlot> {
    // SAFETY: the value is not changed while its key is in the map. If the key has just been removed,
    // the memory may be another pod's by now, whose entry has another cookie.
    unsafe { PODS.get(netns) }.copied()
}

/// The address of the copy depends on the turn, so the processor reads the copy after the turn.
#[inline(always)]
fn entry(slot: PodSlot) -> Option<&'static PodEntry> {
    let turn = POD_TURNS.get_ptr(slot.0)?;
    // SAFETY: the map's value, valid while the program runs. Read once: it may change.
    let turn = unsafe { turn.read_volatile() };
    POD_ENTRIES.get(slot.copy(turn))
}
