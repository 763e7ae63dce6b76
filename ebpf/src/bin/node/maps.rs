//! Maps that only the node's programs use. They are pinned in the node's pin directory.

use ambit_common::{
    Address, FailedKey, NetnsCookie, NodeSettings, SocketCookie, SocketRecord, Ticket,
};
use ambit_ebpf::maps::{Handshakes, MAX_SERVED_PODS, NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, HashMap, HashOfMaps, LpmTrie, SkStorage};
use aya_ebpf::macros::btf_map;

/// What the programs know about the node.
#[btf_map]
pub static NODE: Array<NodeSettings, 1> = Array::new();

/// An [`ambit_common::MeshClass`] for each destination, by longest prefix.
#[btf_map]
pub static MESH: LpmTrie<Address, u8, 262144> = LpmTrie::new();

/// Permissions for the agent's own connects, by socket.
#[btf_map]
pub static TICKETS: HashMap<SocketCookie, Ticket, 65536> = HashMap::new();

/// When all endpoints of a destination last failed for a pod, in nanoseconds of `CLOCK_MONOTONIC`. An entry counts
/// for [`ambit_common::FAILED_FOR_NS`], whether it is deleted or not.
#[btf_map]
pub static FAILED: HashMap<FailedKey, u64, 16384, NO_PREALLOC> = HashMap::new();

/// What is remembered about a socket: its original destination or its caller.
#[btf_map]
pub static SOCKETS: SkStorage<SocketRecord> = SkStorage::new();

/// Each pod's `HANDSHAKES` map.
#[btf_map]
pub static HANDSHAKES_OF: HashOfMaps<NetnsCookie, Handshakes, MAX_SERVED_PODS> = HashOfMaps::new();
