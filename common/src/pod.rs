use crate::{Address, Generation, NetnsCookie, PolicySetId, assert_size};

/// The most shards that the data path of a node can have.
pub const MAX_SHARDS: usize = 8;

/// The number of IP versions, each of which has its own listeners.
pub const FAMILIES: usize = 2;

/// The slots of a pod's socket map: one for each listener kind, IP version and shard.
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
    /// Both versions, in slot order.
    pub const ALL: [Self; FAMILIES] = [Self::V4, Self::V6];

    /// Returns the IP version of an address; a mapped address is IPv4.
    #[inline(always)]
    pub const fn of(address: &Address) -> Self {
        if address.is_v4() { Self::V4 } else { Self::V6 }
    }
}

/// Returns the slot of a listener in its pod's socket map. `shard` must be below [`MAX_SHARDS`].
#[inline(always)]
pub const fn listener_slot(kind: ListenerKind, family: IpFamily, shard: u32) -> u32 {
    (kind as u32 * FAMILIES as u32 + family as u32) * MAX_SHARDS as u32 + shard
}

/// Whether the agent carries an enrolled pod's mesh connections.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub enum PodMode {
    /// Mesh connections are refused in both directions.
    Closed = 0,
    /// Mesh connections go to the agent's listeners. If the agent is dead, their slots are empty, and the
    /// connections are refused.
    Served = 1,
}

/// The most pods that can be enrolled on one node, closed or served.
pub const MAX_PODS: u32 = 4096;

/// The most pods that can be served on one node. Further ones are closed.
pub const MAX_SERVED_PODS: u32 = 1024;

/// Where an enrolled pod's entry is: the value of the `PODS` map, by [`NetnsCookie`]. It does not change
/// while the pod is enrolled.
///
/// Entries of `PODS` are inserted and deleted, never overwritten. The kernel overwrites an entry of a hash
/// by linking a new element before it unlinks the old one, and a look-up in between can miss both. A pod
/// that is missed counts as not enrolled, and its calls leave in plaintext.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "user", derive(Debug, Hash))]
pub struct PodSlot(pub u32);

impl PodSlot {
    /// How many copies each slot has in `POD_ENTRIES`: one is in force, and the next entry is written to
    /// the other. `POD_TURNS` says which is in force.
    pub const COPIES: u32 = 2;

    /// Returns the index in `POD_ENTRIES` of one of the slot's copies, by the lowest bit of the turn.
    #[inline(always)]
    pub const fn copy(self, turn: u8) -> u32 {
        self.0.wrapping_mul(Self::COPIES) | (turn & 1) as u32
    }
}

/// An enrolled pod: the value of the `POD_ENTRIES` map, with two copies for each [`PodSlot`].
///
/// The agent writes the copy that is not in force, and then the byte that puts it in force. Before it
/// writes a copy, it waits until every program that may still read that copy has ended. So a program sees
/// either the old or the new entry, never parts of both.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug, PartialEq, Eq))]
pub struct PodEntry {
    /// The pod's network namespace. A program that finds another pod's entry refuses.
    pub netns: NetnsCookie,
    /// The number of changes of `policy_set`.
    pub generation: Generation,
    /// The set of the policies that decide who may reach this pod.
    pub policy_set: PolicySetId,
    /// Shards of the data path, 1 to [`MAX_SHARDS`].
    pub shards: u32,
    /// The pod's first IPv4 address, or unspecified.
    pub primary_v4: Address,
    /// The pod's first IPv6 address, or unspecified.
    pub primary_v6: Address,
    /// Ports of the agent's listeners, by kind and shard, in host order; 0 is none.
    pub listener_ports: [[u16; MAX_SHARDS]; 3],
    /// A [`PodMode`].
    pub state: u8,
    /// Zero.
    pub zero: [u8; 7],
}
assert_size!(PodEntry, 112);

impl PodEntry {
    /// Whether the pod is served. An unknown mode counts as closed.
    #[inline(always)]
    pub const fn is_served(&self) -> bool {
        self.state == PodMode::Served as u8
    }

    /// Whether `port`, in host order, is the port of one of the agent's listeners in this pod.
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

    /// Returns the port of an outbound listener in host order, or 0.
    #[inline(always)]
    pub const fn outbound_port(&self, shard: u32) -> u16 {
        if shard as usize >= MAX_SHARDS {
            return 0;
        }
        self.listener_ports[ListenerKind::Outbound as usize][shard as usize]
    }
}

/// The key of the `POD_ADDRESSES` map: one of a pod's own IP addresses.
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

/// The key of the `PROBE_PORTS` map: a port that the Pod object declares for a probe or a lifecycle hook.
/// The node itself may connect to it.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug, PartialEq, Eq, PartialOrd, Ord))]
pub struct PodPortKey {
    /// The pod's network namespace.
    pub netns: NetnsCookie,
    /// The port, in host order.
    pub port: u16,
    /// Zero: part of the key.
    pub zero: [u16; 3],
}
assert_size!(PodPortKey, 16);

/// The constants of one pod's `sk_lookup` program. The loader sets them, because this program type cannot
/// call `bpf_get_netns_cookie`.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct PodProgramConstants {
    /// The pod's network namespace.
    pub netns: NetnsCookie,
}
assert_size!(PodProgramConstants, 8);
