use crate::{AddressPort, assert_size};

/// What kind of socket a record describes.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub enum RecordKind {
    /// The socket of a pod's process whose connect was redirected. `endpoint` is its original destination.
    OutboundClient = 1,
    /// The agent's accepted end of a redirected connection. `endpoint` is the original destination.
    OutboundAccepted = 2,
    /// The agent's end of a delivery. `endpoint` is the caller.
    DeliveryClient = 3,
    /// The application's accepted end of a delivery. `endpoint` is the caller.
    DeliveryAccepted = 4,
    /// A socket of the node itself that dials the mesh. `endpoint` is the address that it dialled.
    Node = 5,
    /// The socket of a pod's process that dials one of the pod's own addresses. `endpoint` is the socket's
    /// own address. Exists only during the handshake, never as a socket's record.
    LocalClient = 6,
}

impl RecordKind {
    /// Returns the kind of a stored byte, or `None` if it is unknown.
    #[inline(always)]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::OutboundClient),
            2 => Some(Self::OutboundAccepted),
            3 => Some(Self::DeliveryClient),
            4 => Some(Self::DeliveryAccepted),
            5 => Some(Self::Node),
            6 => Some(Self::LocalClient),
            _ => None,
        }
    }
}

/// What the kernel remembers about one socket: the value of the socket storage `SOCKETS` and, during a
/// handshake, of the pod's `HANDSHAKES`.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug, PartialEq, Eq))]
pub struct SocketRecord {
    /// When the record was made, in nanoseconds of `CLOCK_MONOTONIC`.
    pub since_ns: u64,
    /// An address and port, whose meaning [`RecordKind`] says.
    pub endpoint: AddressPort,
    /// A [`RecordKind`].
    pub kind: u8,
    /// The shard that serves the connection.
    pub shard: u8,
    /// Zero.
    pub zero: u16,
}
assert_size!(SocketRecord, 32);

impl SocketRecord {
    /// Returns the record's kind, or `None` if it is unknown.
    #[inline(always)]
    pub const fn kind(&self) -> Option<RecordKind> {
        RecordKind::from_u8(self.kind)
    }
}
