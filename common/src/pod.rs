use crate::{Address, Generation, NetnsCookie, PolicySetId, assert_size};

/// The most shards that a node's data path can have.
pub const MAX_SHARDS: usize = 8;

/// The address families, each with listeners of its own.
pub const FAMILIES: usize = 2;

/// Slots of a pod's socket map: one for each listener kind, family and shard.
pub const LISTENER_SLOTS: u32 = (3 * FAMILIES * MAX_SHARDS) as u32;

/// What a listener of the agent in a pod's network namespace receives.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(Debug))]
pub enum ListenerKind {
    /// Connections that the pod's processes opened to mesh addresses.
    Outbound = 0,
    /// Inbound plaintext whose verdict needs the proxy.
    Plaintext = 1,
    /// Inbound HBONE tunnels.
    Hbone = 2,
}

impl ListenerKind {
    /// All kinds, in slot order.
    pub const ALL: [Self; 3] = [Self::Outbound, Self::Plaintext, Self::Hbone];
}

/// IP version of a listener.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(Debug))]
pub enum IpFamily {
    /// IPv4.
    V4 = 0,
    /// IPv6.
    V6 = 1,
}

impl IpFamily {
    /// Both families, in slot order.
    pub const ALL: [Self; FAMILIES] = [Self::V4, Self::V6];

    /// The family of an address (an IPv4-mapped one is IPv4).
    #[inline(always)]
    pub const fn of(address: &Address) -> Self {
        if address.is_v4() { Self::V4 } else { Self::V6 }
    }
}

/// The slot of a listener in its pod's socket map. `shard` is below [`MAX_SHARDS`].
#[inline(always)]
pub const fn listener_slot(kind: ListenerKind, family: IpFamily, shard: u32) -> u32 {
    (kind as u32 * FAMILIES as u32 + family as u32) * MAX_SHARDS as u32 + shard
}

/// Whether a pod's mesh traffic is served or refused.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub enum PodMode {
    /// Enrolled, but not served: mesh traffic is refused both ways.
    Closed = 0,
    /// Served by the agent's listeners.
    Served = 1,
}

/// The most pods that can be enrolled on one node, closed or served.
pub const MAX_PODS: u32 = 4096;

/// The most pods that can be served on one node. Those beyond it are closed.
pub const MAX_SERVED_PODS: u32 = 1024;

/// Where an enrolled pod's entry is: value of the `PODS` map, keyed by [`NetnsCookie`]. It stays the
/// same for as long as the pod is enrolled.
///
/// `PODS` is a hash that is only inserted into and deleted from: the kernel replaces a value of a
/// hash by linking a new element before it unlinks the old one, and a look-up in between can miss
/// both. A pod that is missed counts as not enrolled, and its calls leave in plaintext.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "user", derive(Debug, Hash))]
pub struct PodSlot(pub u32);

impl PodSlot {
    /// How many entries each slot has in `POD_ENTRIES`: the one in force, and one to write the next
    /// one into. `POD_TURNS` says which is in force.
    pub const COPIES: u32 = 2;

    /// The index in `POD_ENTRIES` of one of the slot's copies. The turn's lowest bit counts.
    #[inline(always)]
    pub const fn copy(self, turn: u8) -> u32 {
        self.0.wrapping_mul(Self::COPIES) | (turn & 1) as u32
    }
}

/// An enrolled pod: value of the `POD_ENTRIES` map, two for each [`PodSlot`].
///
/// The agent writes the copy that is not in force, and then the one byte that says which is. It writes
/// a copy only after a time in which every program that may have held it has ended. So a program
/// sees the old entry or the new one, and never parts of both.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug, PartialEq, Eq))]
pub struct PodEntry {
    /// Whose entry this is. A program that finds another pod's here refuses.
    pub netns: NetnsCookie,
    /// Counts the changes of `policy_set`.
    pub generation: Generation,
    /// The policies that decide who may reach this pod.
    pub policy_set: PolicySetId,
    /// Shards of the data path, 1 to [`MAX_SHARDS`].
    pub shards: u32,
    /// The pod's first IPv4 address, or unspecified.
    pub primary_v4: Address,
    /// The pod's first IPv6 address, or unspecified.
    pub primary_v6: Address,
    /// Ports of the agent's listeners: by kind, then shard; 0 is none. Host order.
    pub listener_ports: [[u16; MAX_SHARDS]; 3],
    /// A [`PodMode`].
    pub state: u8,
    /// Zero.
    pub zero: [u8; 7],
}
assert_size!(PodEntry, 112);

impl PodEntry {
    /// Whether the pod's mesh traffic is served. Any unknown state is closed.
    #[inline(always)]
    pub const fn is_served(&self) -> bool {
        self.state == PodMode::Served as u8
    }

    /// Whether `port` (host order) is one of the agent's listeners in this pod.
    #[inline(always)]
    pub fn is_listener_port(&self, port: u16) -> bool {
        let mut kind = 0;
        while kind < 3 {
            let mut shard = 0;
            while shard < MAX_SHARDS {
                if self.listener_ports[kind][shard] == port && port != 0 {
                    return true;
                }
                shard += 1;
            }
            kind += 1;
        }
        false
    }

    /// The port of an outbound listener, host order; 0 is none.
    #[inline(always)]
    pub const fn outbound_port(&self, shard: u32) -> u16 {
        if shard as usize >= MAX_SHARDS {
            return 0;
        }
        self.listener_ports[ListenerKind::Outbound as usize][shard as usize]
    }
}

/// Key of the `POD_ADDRESSES` map: an IP address that is a pod's own.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug, PartialEq, Eq, PartialOrd, Ord))]
pub struct PodAddressKey {
    /// The pod's network namespace.
    pub netns: NetnsCookie,
    /// The address.
    pub address: Address,
}
assert_size!(PodAddressKey, 24);

/// Key of the `PROBE_PORTS` map: a port that the Pod object declares for a probe or a lifecycle
/// hook, on which the node itself is admitted.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug, PartialEq, Eq, PartialOrd, Ord))]
pub struct PodPortKey {
    /// The pod's network namespace.
    pub netns: NetnsCookie,
    /// Host order.
    pub port: u16,
    /// Zero: part of the key.
    pub zero: [u16; 3],
}
assert_size!(PodPortKey, 16);

/// Constants of one pod's `sk_lookup` program, set when it is loaded (`bpf_get_netns_cookie` does
/// not exist in that program type).
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct PodProgramConstants {
    /// The pod's network namespace.
    pub netns: NetnsCookie,
}
assert_size!(PodProgramConstants, 8);
