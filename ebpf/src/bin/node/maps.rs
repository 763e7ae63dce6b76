//! Maps that only the node's programs use.

use ambit_common::{Address, NetnsCookie, NodeSettings, SocketCookie, SocketRecord, Ticket};
use ambit_ebpf::maps::{Handshakes, MAX_SERVED_PODS};
use aya_ebpf::btf_maps::{Array, HashMap, HashOfMaps, LpmTrie, SkStorage};
use aya_ebpf::macros::btf_map;

/// What the programs know of the node.
#[btf_map]
pub static NODE: Array<NodeSettings, 1> = Array::new();

/// Destinations, by longest prefix: an [`ambit_common::MeshClass`].
#[btf_map]
pub static MESH: LpmTrie<Address, u8, 262144> = LpmTrie::new();

/// Permissions for the agent's own connects.
#[btf_map]
pub static TICKETS: HashMap<SocketCookie, Ticket, 65536> = HashMap::new();

/// What is remembered of a socket.
#[btf_map]
pub static SOCKETS: SkStorage<SocketRecord> = SkStorage::new();

/// The handshakes of each pod that is served.
#[btf_map]
pub static HANDSHAKES_OF: HashOfMaps<NetnsCookie, Handshakes, MAX_SERVED_PODS> = HashOfMaps::new();
