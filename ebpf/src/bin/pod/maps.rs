//! Maps of one pod.

use ambit_common::{Connection, LISTENER_SLOTS, NetnsCookie, PodProgramConstants};
use ambit_ebpf::maps::Handshakes;
use aya_ebpf::Global;
use aya_ebpf::btf_maps::{LruHashMap, SockMap};
use aya_ebpf::macros::btf_map;

/// What the loader knows of the pod.
#[unsafe(no_mangle)]
pub static POD: Global<PodProgramConstants> = Global::new(PodProgramConstants {
    netns: NetnsCookie(0),
});

/// The agent's listeners in this pod, by [`ambit_common::listener_slot`].
#[btf_map]
pub static LISTENERS: SockMap<{ LISTENER_SLOTS as usize }> = SockMap::new();

/// The pod's handshakes; the same map is the pod's entry of the node's `HANDSHAKES_OF`.
#[btf_map]
pub static HANDSHAKES: Handshakes = Handshakes::new();

/// When connections were last refused, nanoseconds. Only folds repeated segments: a lost entry
/// counts one denial twice.
#[btf_map]
pub static REFUSED: LruHashMap<Connection, u64, 1024> = LruHashMap::new();
