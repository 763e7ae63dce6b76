use crate::{FourTuple, IdentityId, NetnsCookie, PolicySetId, assert_size};

/// Where the kernel decided. [`Hook::SkLookup`] sees connections of both directions: inbound ones, and
/// outbound ones that were redirected to the agent.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(Debug))]
pub enum Hook {
    /// `cgroup/connect4` or `connect6`, on a connect of a pod's process.
    Connect = 1,
    /// The same hooks, on a connect of the agent under a ticket.
    Delivery = 2,
    /// `sk_lookup`, on a connection that reaches the pod's network namespace.
    SkLookup = 3,
}

impl Hook {
    /// Returns the hook of a stored byte, or `None` if it is unknown.
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Connect),
            2 => Some(Self::Delivery),
            3 => Some(Self::SkLookup),
            _ => None,
        }
    }

    /// Returns the word that logs and events use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Delivery => "delivery",
            Self::SkLookup => "sk_lookup",
        }
    }
}

/// Defines the reasons with their number and the word that logs and metrics use.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $word:literal;)*) => {
        /// Why the kernel refused a connection.
        #[repr(u8)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "user", derive(Debug))]
        pub enum Reason {
            $($(#[$doc])* $name = $value,)*
        }

        impl Reason {
            /// Returns the reason of a stored byte, or `None` if it is unknown.
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Returns the word that logs, events and metrics use.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

reasons! {
    /// A DENY alternative matched. PeerAuthentication also makes DENY alternatives.
    DeniedByPolicy = 1, "denied-by-policy";
    /// ALLOW policies exist and none of them matched.
    NoAllowMatched = 2, "no-allow-policy-matched";
    /// A policy that selects the workload has a field that Ambit does not enforce, so everything is refused.
    PolicyNotEnforceable = 3, "policy-not-enforceable";
    /// The maps lack an entry that must exist, which is a fault of the agent.
    TablesIncomplete = 4, "tables-incomplete";
    /// The pod is enrolled and not served: the agent is starting, or could not serve it.
    PodClosed = 5, "pod-closed";
    /// The slot of the agent's listener is empty: the agent is dead, or restarting.
    NoListener = 6, "agent-not-listening";
    /// The destination is not an address of the pod.
    ForeignAddress = 7, "foreign-local-address";
    /// The destination is the port of a listener of the agent.
    ListenerPort = 8, "agent-port-dialled";
    /// The connection uses a loopback address that only the agent's connections use, and has no record.
    NoRecord = 9, "no-connection-record";
    /// The socket is bound to a device and cannot be redirected.
    DeviceBound = 10, "socket-bound-to-device";
    /// The agent's ticket does not fit the connection.
    TicketMismatch = 11, "ticket-mismatch";
    /// The kernel could not store the connection's record.
    NoMemory = 12, "no-room-for-record";
    /// The canary connect at the agent's start, which is always denied.
    Canary = 13, "canary";
    /// The kernel could not set an option or the source of the agent's socket.
    SocketNotSet = 14, "socket-not-set";
}

/// A denial that the kernel reports: an entry of the ring buffer `EVENTS`.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug, PartialEq, Eq))]
pub struct DenialEvent {
    /// The time, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// The network namespace of the pod that was called, or whose process dialled.
    pub netns: NetnsCookie,
    /// The connection. For a delivery, the client is the authenticated caller; for a pod's own connect, it is
    /// unspecified.
    pub connection: FourTuple,
    /// The caller's identity, or [`IdentityId::NONE`].
    pub identity: IdentityId,
    /// The set that decided, or [`PolicySetId::NONE`].
    pub policy_set: PolicySetId,
    /// The alternative that decided, or [`crate::NO_ALTERNATIVE`].
    pub alternative: u32,
    /// A [`Hook`].
    pub hook: u8,
    /// A [`Reason`].
    pub reason: u8,
    /// Zero.
    pub zero: u16,
}
assert_size!(DenialEvent, 72);
