//! Maps that all programs of a node share. They are pinned in the node's pin directory.
//!
//! An entry of a hash that protects a pod is never overwritten. The kernel overwrites an entry by linking
//! a new element and then unlinking the old one, and a look-up in between can miss both. For each map,
//! `ARCHITECTURE.md` says how it is changed, and why a look-up that misses is safe.

use ambit_common::{
    AddressBitsKey, COUNTERS, DenialEvent, FourTuple, IdentityBitsKey, NetnsCookie, PodAddressKey,
    PodEntry, PodPortKey, PodSlot, PolicySetHeader, PolicySetId, PortBitsKey, SetBits,
    SocketRecord,
};
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;

/// The kernel takes memory for entries when they are inserted.
pub const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// The most pods that can be enrolled on one node.
pub const MAX_PODS: usize = ambit_common::MAX_PODS as usize;

/// The most pods that can be served on one node.
pub const MAX_SERVED_PODS: usize = ambit_common::MAX_SERVED_PODS as usize;

/// The most handshakes of one pod, and of the agent in that pod, that can be in progress.
pub const MAX_HANDSHAKES: usize = 4096;

/// A pod's handshakes by four-tuple: its redirected connects, its connects to itself, and the deliveries
/// to it. Each pod's map is preallocated, so that no pod can use up the memory of another.
pub type Handshakes = HashMap<FourTuple, SocketRecord, MAX_HANDSHAKES>;

/// Enrolled pods, and where their entries are. Entries are inserted and deleted, never overwritten. Only
/// [`crate::pods`] reads this map.
#[btf_map]
pub static PODS: HashMap<NetnsCookie, PodSlot, MAX_PODS> = HashMap::new();

/// Which copy of a slot's entry is in force, by slot. It is one byte, so that a program sees either the
/// old or the new value.
#[btf_map]
pub static POD_TURNS: Array<u8, MAX_PODS> = Array::new();

/// The entries of enrolled pods, by [`PodSlot::copy`].
#[btf_map]
pub static POD_ENTRIES: Array<PodEntry, { MAX_PODS * PodSlot::COPIES as usize }> = Array::new();

/// The pods' own addresses. Only the presence of a key matters.
#[btf_map]
pub static POD_ADDRESSES: HashMap<PodAddressKey, u8, { MAX_SERVED_PODS * 8 }> = HashMap::new();

/// Ports on which the node itself is admitted. Only the presence of a key matters.
#[btf_map]
pub static PROBE_PORTS: HashMap<PodPortKey, u8, { MAX_SERVED_PODS * 8 }> = HashMap::new();

/// Handshakes of the node itself with a pod, and when each began, in nanoseconds of `CLOCK_MONOTONIC`.
#[btf_map]
pub static NODE_CONNECTIONS: HashMap<FourTuple, u64, 16384> = HashMap::new();

/// Policy sets, without what their dimensions say.
#[btf_map]
pub static POLICY_SETS: HashMap<PolicySetId, PolicySetHeader, 2048, NO_PREALLOC> = HashMap::new();

/// Alternatives that a peer identity satisfies.
#[btf_map]
pub static IDENTITY_BITS: HashMap<IdentityBitsKey, SetBits, 131072, NO_PREALLOC> = HashMap::new();

/// Alternatives that a source address satisfies.
#[btf_map]
pub static SOURCE_BITS: LpmTrie<AddressBitsKey, SetBits, 65536> = LpmTrie::new();

/// Alternatives that a destination address satisfies.
#[btf_map]
pub static DESTINATION_BITS: LpmTrie<AddressBitsKey, SetBits, 65536> = LpmTrie::new();

/// Alternatives that a destination port satisfies.
#[btf_map]
pub static PORT_BITS: HashMap<PortBitsKey, SetBits, 65536, NO_PREALLOC> = HashMap::new();

/// Outcomes by [`ambit_common::Counter`].
#[btf_map]
pub static COUNTS: PerCpuArray<u64, { COUNTERS as usize }> = PerCpuArray::new();

/// Denials that the agent reads.
#[btf_map]
pub static EVENTS: RingBuf<DenialEvent, { 1 << 20 }> = RingBuf::new();

/// What each pod has used of its share of `EVENTS` in the current second, by [`PodSlot`].
#[btf_map]
pub static EVENT_SHARES: Array<EventShare, MAX_PODS> = Array::new();

/// A pod's use of the ring buffer.
#[repr(C)]
pub struct EventShare {
    /// When the current second began, in nanoseconds of `CLOCK_MONOTONIC`.
    pub since_ns: u64,
    /// The denials that were reported in it, as the bits of [`ambit_common::DenialCounts`].
    pub reported: u64,
}
