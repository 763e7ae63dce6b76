//! Maps that all programs of a node share, pinned in its pin directory.

//!
//! What tells whether anyone is protected is never replaced in a hash: the kernel replaces a value
//! there by linking a new element before it unlinks the old one, and a look-up in between can miss both.
//! `ARCHITECTURE.md` says of each map how it is changed, and why a look-up that misses is safe.

use ambit_common::{
    AddressBitsKey, COUNTERS, Connection, DenialEvent, IdentityBitsKey, NetnsCookie, PodAddressKey,
    PodEntry, PodPortKey, PodSlot, PolicySetHeader, PolicySetId, PortBitsKey, SetBits,
    SocketRecord,
};
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// Enrolled pods of one node.
pub const MAX_PODS: usize = ambit_common::MAX_PODS as usize;

/// Pods of one node that are served.
pub const MAX_SERVED_PODS: usize = ambit_common::MAX_SERVED_PODS as usize;

/// Handshakes of one pod's own and its agent's connections that may be under way at once.
pub const MAX_HANDSHAKES: usize = 4096;

/// A pod's handshakes: its redirected connects and the deliveries to it, by four-tuple.
/// Preallocated, so that no pod can take another's room.
pub type Handshakes = HashMap<Connection, SocketRecord, MAX_HANDSHAKES>;

/// Enrolled pods, and where their entries are. Only inserted into and deleted from; to be read by
/// [`crate::pods`] only.
#[btf_map]
pub static PODS: HashMap<NetnsCookie, PodSlot, MAX_PODS> = HashMap::new();

/// Which copy of a slot's entry is in force: one byte, so that a program sees the old or the new value.
#[btf_map]
pub static POD_TURNS: Array<u8, MAX_PODS> = Array::new();

/// The entries of enrolled pods, by [`PodSlot::copy`].
#[btf_map]
pub static POD_ENTRIES: Array<PodEntry, { MAX_PODS * PodSlot::COPIES as usize }> = Array::new();

/// The pods' own addresses. The value says nothing.
#[btf_map]
pub static POD_ADDRESSES: HashMap<PodAddressKey, u8, { MAX_SERVED_PODS * 8 }> = HashMap::new();

/// Ports on which the node itself is admitted. The value says nothing.
#[btf_map]
pub static PROBE_PORTS: HashMap<PodPortKey, u8, { MAX_SERVED_PODS * 8 }> = HashMap::new();

/// Connects of the node itself to a pod that are under way: when they began, nanoseconds.
#[btf_map]
pub static NODE_CONNECTIONS: HashMap<Connection, u64, 16384> = HashMap::new();

/// Policy sets.
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

/// Outcomes, by [`ambit_common::Counter`].
#[btf_map]
pub static COUNTS: PerCpuArray<u64, { COUNTERS as usize }> = PerCpuArray::new();

/// Denials for the agent.
#[btf_map]
pub static EVENTS: RingBuf<DenialEvent, { 1 << 20 }> = RingBuf::new();

/// What each pod has used of its share of `EVENTS` in the current second, by [`PodSlot`].
#[btf_map]
pub static EVENT_SHARES: Array<EventShare, MAX_PODS> = Array::new();

/// A pod's use of the ring buffer.
#[repr(C)]
pub struct EventShare {
    /// When the current second began, nanoseconds.
    pub since_ns: u64,
    /// Events reported in it: [`ambit_common::EventCounts`].
    pub reported: u64,
}
