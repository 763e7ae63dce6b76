use crate::{
    AddressPort, Generation, IdentityId, NO_ALTERNATIVE, NetnsCookie, PolicySetId, assert_size,
};

/// Why the agent opens a connection from inside a pod's network namespace.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(Debug))]
pub enum TicketKind {
    /// An HBONE tunnel to another pod's node.
    Tunnel = 1,
    /// A plaintext connection to an endpoint that its objects do not opt in.
    Plaintext = 2,
    /// Delivery of an inbound connection to the pod's application; judged by the pod's policies.
    Delivery = 3,
    /// Proof at start that the hook sees the agent: always denied.
    Canary = 4,
}

/// What the connect hook wrote into a ticket.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub enum TicketVerdict {
    /// The hook has not seen the ticket.
    Pending = 0,
    /// Connected as asked; bytes may flow.
    Allow = 1,
    /// Refused; see the ticket's reason.
    Deny = 2,
    /// Connected, but no byte may flow before the userspace evaluator has allowed it.
    Ask = 3,
    /// The pod's policies changed since the ticket was made: take a new one.
    Stale = 4,
}

impl TicketVerdict {
    /// The verdict of a stored byte. Anything unknown is a denial.
    #[inline(always)]
    pub const fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Pending,
            1 => Self::Allow,
            3 => Self::Ask,
            4 => Self::Stale,
            _ => Self::Deny,
        }
    }
}

/// Permission for one connect of one socket of the agent: value of `TICKETS`, keyed by
/// [`crate::SocketCookie`]. The agent inserts it before it connects and removes it after.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug, PartialEq, Eq))]
pub struct Ticket {
    /// The pod in whose network namespace the socket lives.
    pub netns: NetnsCookie,
    /// Delivery: the generation of the pod's policies that the agent acted on.
    pub generation: Generation,
    /// The only destination that the socket may dial.
    pub destination: AddressPort,
    /// Delivery: the caller as the application is to see it. Policy uses its address.
    pub caller: AddressPort,
    /// Delivery: the caller's verified identity.
    pub identity: IdentityId,
    /// Written by the hook: the set that decided.
    pub policy_set: PolicySetId,
    /// Written by the hook: the alternative that decided, or [`NO_ALTERNATIVE`].
    pub alternative: u32,
    /// A [`TicketKind`].
    pub kind: u8,
    /// Written by the hook: a [`TicketVerdict`].
    pub verdict: u8,
    /// Written by the hook: a [`crate::Reason`].
    pub reason: u8,
    /// Zero.
    pub zero: u8,
}
assert_size!(Ticket, 72);

impl Ticket {
    /// A ticket that the hook has not seen.
    pub const fn new(kind: TicketKind, netns: NetnsCookie, destination: AddressPort) -> Self {
        Self {
            netns,
            generation: Generation(0),
            destination,
            caller: AddressPort::UNSPECIFIED,
            identity: IdentityId::NONE,
            policy_set: PolicySetId::NONE,
            alternative: NO_ALTERNATIVE,
            kind: kind as u8,
            verdict: TicketVerdict::Pending as u8,
            reason: 0,
            zero: 0,
        }
    }
}
