//! Maps that all programs of a node share, pinned in its pin directory.

use ambit_common::{
    AddressBitsKey, Bitmap, COUNTERS, Connection, DenialEvent, IdentityBitsKey, NetnsCookie,
    PodAddressKey, PodEntry, PodPortKey, PolicySetHeader, PolicySetId, PortBitsKey, SocketRecord,
};
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{HashMap, LpmTrie, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// Enrolled pods of one node.
pub const MAX_PODS: usize = 1024;

/// Handshakes of one pod's own and its agent's connections that may be under way at once.
pub const MAX_HANDSHAKES: usize = 4096;

/// A pod's handshakes: its redirected connects and the deliveries to it, by four-tuple.
/// Preallocated, so that no pod can take another's room.
pub type Handshakes = HashMap<Connection, SocketRecord, MAX_HANDSHAKES>;

/// Enrolled pods.
#[btf_map]
pub static PODS: HashMap<NetnsCookie, PodEntry, MAX_PODS> = HashMap::new();

/// The pods' own addresses. The value says nothing.
#[btf_map]
pub static POD_ADDRESSES: HashMap<PodAddressKey, u8, { MAX_PODS * 8 }> = HashMap::new();

/// Ports on which the node itself is admitted. The value says nothing.
#[btf_map]
pub static PROBE_PORTS: HashMap<PodPortKey, u8, { MAX_PODS * 8 }> = HashMap::new();

/// Connects of the node itself to a pod that are under way: when they began, nanoseconds.
#[btf_map]
pub static NODE_CONNECTIONS: HashMap<Connection, u64, 16384> = HashMap::new();

/// Policy sets.
#[btf_map]
pub static POLICY_SETS: HashMap<PolicySetId, PolicySetHeader, 2048, NO_PREALLOC> = HashMap::new();

/// Alternatives that a peer identity satisfies.
#[btf_map]
pub static IDENTITY_BITS: HashMap<IdentityBitsKey, Bitmap, 131072, NO_PREALLOC> = HashMap::new();

/// Alternatives that a source address satisfies.
#[btf_map]
pub static SOURCE_BITS: LpmTrie<AddressBitsKey, Bitmap, 65536> = LpmTrie::new();

/// Alternatives that a destination address satisfies.
#[btf_map]
pub static DESTINATION_BITS: LpmTrie<AddressBitsKey, Bitmap, 65536> = LpmTrie::new();

/// Alternatives that a destination port satisfies.
#[btf_map]
pub static PORT_BITS: HashMap<PortBitsKey, Bitmap, 65536, NO_PREALLOC> = HashMap::new();

/// Outcomes, by [`ambit_common::Counter`].
#[btf_map]
pub static COUNTS: PerCpuArray<u64, { COUNTERS as usize }> = PerCpuArray::new();

/// Denials for the agent.
#[btf_map]
pub static EVENTS: RingBuf<DenialEvent, { 1 << 20 }> = RingBuf::new();

/// What each pod has used of its share of `EVENTS` in the current second.
#[btf_map]
pub static EVENT_SHARES: HashMap<NetnsCookie, EventShare, MAX_PODS> = HashMap::new();

/// A pod's use of the ring buffer.
#[repr(C)]
pub struct EventShare {
    /// When the current second began, nanoseconds.
    pub since_ns: u64,
    /// Events reported in it.
    pub reported: u64,
}
