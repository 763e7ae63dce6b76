use crate::{FourTuple, IdentityId, NetnsCookie, PolicySetId, assert_size};

/// Which kernel hook decided.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(Debug))]
pub enum Hook {
    /// `cgroup/connect4` and `connect6`: a pod's own connect.
    Connect = 1,
    /// The same hooks, for the agent's delivery of an inbound connection.
    Delivery = 2,
    /// `sk_lookup` of the pod.
    SkLookup = 3,
}

impl Hook {
    /// The hook of a stored byte; `None` is no hook of ours.
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Connect),
            2 => Some(Self::Delivery),
            3 => Some(Self::SkLookup),
            _ => None,
        }
    }

    /// The word that logs and events use.
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
            /// The reason of a stored byte; `None` is no reason of ours.
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The word that logs, events and metrics use.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

reasons! {
    /// A DENY alternative matched (PeerAuthentication's too).
    DeniedByPolicy = 1, "denied-by-policy";
    /// ALLOW policies exist and none of them matched.
    NoAllowMatched = 2, "no-allow-policy-matched";
    /// A policy that selects the workload has a field that is not enforced: all is refused.
    PolicyNotEnforceable = 3, "policy-not-enforceable";
    /// The tables have no entry where there must be one: refused, and a fault of ours.
    TablesIncomplete = 4, "tables-incomplete";
    /// The pod is enrolled but not served (the agent is starting, or has failed to enrol it).
    PodClosed = 5, "pod-closed";
    /// No listener of the agent: it is dead, or restarting.
    NoListener = 6, "agent-not-listening";
    /// The local address is none of the pod's.
    ForeignAddress = 7, "foreign-local-address";
    /// A port of the agent's listeners was dialled.
    ListenerPort = 8, "agent-port-dialled";
    /// A loopback address that only the agent's connections use, without a record of one.
    NoRecord = 9, "no-connection-record";
    /// The socket is bound to a device and cannot be redirected.
    DeviceBound = 10, "socket-bound-to-device";
    /// The agent's ticket did not fit the connection.
    TicketMismatch = 11, "ticket-mismatch";
    /// The kernel could not store what it has to remember of the connection.
    NoMemory = 12, "no-room-for-record";
    /// The canary at start, which is always denied.
    Canary = 13, "canary";
}

/// A denial that the kernel reports: the record of the ring buffer `EVENTS`.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug, PartialEq, Eq))]
pub struct DenialEvent {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// The pod.
    pub netns: NetnsCookie,
    /// The connection; for a delivery the client is the authenticated caller.
    pub connection: FourTuple,
    /// The caller's identity.
    pub identity: IdentityId,
    /// The set that decided.
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
