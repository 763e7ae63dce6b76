use crate::{AddressPort, assert_size};

/// What a socket's record says of it.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub enum RecordKind {
    /// A pod process's socket whose connect was redirected; `endpoint` is what it dialled.
    OutboundClient = 1,
    /// The agent's accepted end of such a connection; `endpoint` is what was dialled.
    OutboundAccepted = 2,
    /// The agent's socket that dials an application; `endpoint` is the caller.
    DeliveryClient = 3,
    /// The application's accepted end of such a connection; `endpoint` is the caller.
    DeliveryAccepted = 4,
    /// A socket of the node itself that dials a pod; `endpoint` is unspecified.
    Node = 5,
    /// A pod process's socket that dials one of the pod's own addresses; `endpoint` is the socket's
    /// own address. Kept for the handshake only, never as a socket's record.
    LocalClient = 6,
}

impl RecordKind {
    /// The kind of a stored byte; `None` is no kind of ours.
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

/// What the kernel remembers of one socket: value of the socket storage `SOCKETS`, and during a
/// handshake of the pod's `HANDSHAKES` (both keyed from the client's side).
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug, PartialEq, Eq))]
pub struct SocketRecord {
    /// When the record was made, nanoseconds of `CLOCK_MONOTONIC`.
    pub since_ns: u64,
    /// See [`RecordKind`] for what it is.
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
    /// The record's kind.
    #[inline(always)]
    pub const fn kind(&self) -> Option<RecordKind> {
        RecordKind::from_u8(self.kind)
    }
}
