//! What Ambit's kernel programs and its agent agree on.
//!
//! Everything here crosses the boundary between kernel and userspace as the key or value of a BPF map. So
//! each type is `repr(C)`, names all of its padding, and has its size asserted. [`LAYOUT_VERSION`] is the
//! version of all layouts together. It names the pin directory, because a pinned map outlives the agent
//! that made it.
//!
//! Byte order: an [`Address`] is in network order, as on the wire, and so are values whose name ends in
//! `_be`. Ports are in host order: a program converts the port of a kernel context when it reads it.
#![cfg_attr(not(feature = "user"), no_std)]

mod address;
mod classifier;
mod counter;
mod denial;
mod denial_counts;
mod failed;
mod ids;
mod mesh;
mod node;
mod pod;
mod policy;
mod socket_record;
mod ticket;

pub use address::{Address, AddressPort, FourTuple};
pub use classifier::{ClassifierInput, ClassifierOutput, Sightings};
pub use counter::{COUNTERS, Counter};
pub use denial::{DenialEvent, Hook, Reason};
pub use denial_counts::DenialCounts;
pub use failed::{FAILED_FOR_NS, FailedKey, has_just_failed};
pub use ids::{Generation, IdentityId, NetnsCookie, PolicySetId, SocketCookie};
pub use mesh::{MESH_PREFIX_BITS, MeshClass};
pub use node::NodeSettings;
pub use pod::{
    FAMILIES, IpFamily, LISTENER_SLOTS, ListenerKind, MAX_PODS, MAX_SERVED_PODS, MAX_SHARDS,
    PodAddressKey, PodEntry, PodMode, PodPortKey, PodProgramConstants, PodSlot, listener_slot,
};
pub use policy::{
    ADDRESS_KEY_SET_BITS, AddressBitsKey, BITMAP_WORDS, Bitmap, IdentityBitsKey, Judgement,
    KernelVerdict, MAX_ALTERNATIVES, NO_ALTERNATIVE, PolicySetHeader, PortBitsKey, SetBits,
    SetMode, judge,
};
pub use socket_record::{RecordKind, SocketRecord};
pub use ticket::{ListenerCheck, Ticket, TicketKind, TicketVerdict};

/// The port of HBONE (Istio ambient) on the wire. It is the same on every pod.
pub const HBONE_PORT: u16 = 15008;

/// The first two octets of the IPv4 range from which the agent dials applications: `127.77.0.0/16`.
pub const DELIVERY_RANGE: [u8; 2] = [127, 77];

/// The first two octets of the IPv4 range to which connects are redirected: `127.78.0.0/16`.
pub const OUTBOUND_RANGE: [u8; 2] = [127, 78];

/// The source port of the connect hook's look-ups for a listener. No connection has it: a look-up is told from
/// a segment by this port together with the lack of a device, which every segment has.
pub const LOOKUP_SOURCE_PORT: u16 = 0;

/// How long one of the agent's connections may be silent before the other end is asked whether it is there, in
/// seconds.
pub const KEEP_ALIVE_IDLE_S: u32 = 60;

/// The time between two such questions, in seconds.
pub const KEEP_ALIVE_INTERVAL_S: u32 = 15;

/// How many of them may stay unanswered. The connection then ends, two minutes after the last sign of life.
pub const KEEP_ALIVE_PROBES: u32 = 4;

/// The version of the layout of all types in this crate. Raise it with any change of a layout or of a map's
/// type: an agent never opens the pins of another layout.
pub const LAYOUT_VERSION: u32 = 3;

/// Asserts the size of a type that crosses the kernel boundary.
macro_rules! assert_size {
    ($type:ty, $size:expr) => {
        const _: () = assert!(core::mem::size_of::<$type>() == $size);
    };
}
pub(crate) use assert_size;

#[cfg(feature = "maps")]
mod maps {
    //! Types that are passed to the kernel as bytes.
    use super::*;

    macro_rules! pod {
        ($($type:ty),* $(,)?) => {
            $(
                // SAFETY: `repr(C)` or `repr(transparent)`, made of integers only, without
                // implicit padding (asserted by the size beside each definition).
                unsafe impl aya::Pod for $type {}
            )*
        };
    }
    pod!(
        Address,
        AddressBitsKey,
        Bitmap,
        FailedKey,
        FourTuple,
        AddressPort,
        IdentityBitsKey,
        NodeSettings,
        PodAddressKey,
        PodEntry,
        PodPortKey,
        PodProgramConstants,
        PodSlot,
        PolicySetHeader,
        PortBitsKey,
        SetBits,
        SocketRecord,
        Ticket,
    );
}
