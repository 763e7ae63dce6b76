//! Maps that each pod has of its own. They are pinned in the pod's folder of the pin directory.

use ambit_common::{FourTuple, LISTENER_SLOTS, NetnsCookie, PodProgramConstants};
use ambit_ebpf::maps::Handshakes;
use aya_ebpf::Global;
use aya_ebpf::btf_maps::{LruHashMap, SockMap};
use aya_ebpf::macros::btf_map;

/// Constants that the loader sets.
#[unsafe(no_mangle)]
pub static POD: Global<PodProgramConstants> = Global::new(PodProgramConstants {
    netns: NetnsCookie(0),
});

/// The agent's listeners in this pod, by [`ambit_common::listener_slot`].
#[btf_map]
pub static LISTENERS: SockMap<{ LISTENER_SLOTS as usize }> = SockMap::new();

/// The pod's handshakes. The same map is the pod's entry in the node's `HANDSHAKES_OF`.
#[btf_map]
pub static HANDSHAKES: Handshakes = Handshakes::new();

/// When connections were last refused, in nanoseconds of `CLOCK_MONOTONIC`. It only merges the segments
/// of one connection into one denial: if an entry is lost, a denial is counted twice.
#[btf_map]
pub static REFUSED: LruHashMap<FourTuple, u64, 1024> = LruHashMap::new();
