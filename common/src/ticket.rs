use crate::{
    AddressPort, Generation, IdentityId, NO_ALTERNATIVE, NetnsCookie, PolicySetId, assert_size,
};

/// What the agent opens a connection from a pod's network namespace for.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(Debug))]
pub enum TicketKind {
    /// An HBONE tunnel to another pod.
    Tunnel = 1,
    /// A plaintext connection to an endpoint that is not opted in.
    Plaintext = 2,
    /// A delivery to the pod's application, which the pod's policies judge.
    Delivery = 3,
    /// The proof at the agent's start that the hook sees the agent. Always denied.
    Canary = 4,
}

/// The verdict that the connect hook writes into a ticket.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub enum TicketVerdict {
    /// The hook has not seen the ticket.
    Pending = 0,
    /// The connect goes on, and bytes may pass.
    Allow = 1,
    /// The connect fails; the ticket has the reason.
    Deny = 2,
    /// The connect goes on, and no byte may pass before the evaluator in userspace has allowed it.
    Ask = 3,
    /// The connect fails because the pod's policies have changed since the ticket was made. A new ticket is
    /// needed.
    Stale = 4,
    /// The connect fails because no socket listens at the destination, as far as the kernel's look-up finds.
    NothingListens = 5,
}

impl TicketVerdict {
    /// Returns the verdict of a stored byte. An unknown one counts as a denial.
    #[inline(always)]
    pub const fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Pending,
            1 => Self::Allow,
            3 => Self::Ask,
            4 => Self::Stale,
            5 => Self::NothingListens,
            _ => Self::Deny,
        }
    }
}

/// Whether the hook looks for a listener before a delivery.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub enum ListenerCheck {
    /// It does, and fails the connect if there is none.
    LookUp = 0,
    /// It does not: the agent has found that the look-up could miss a listener.
    Skip = 1,
}

/// The permission for one connect of one socket of the agent: the value of `TICKETS`, by
/// [`crate::SocketCookie`]. The agent inserts it before it connects and removes it afterwards.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug, PartialEq, Eq))]
pub struct Ticket {
    /// The pod in whose network namespace the socket lives.
    pub netns: NetnsCookie,
    /// For a delivery: the generation of the pod's policies that the agent has seen.
    pub generation: Generation,
    /// The only destination that the socket may dial.
    pub destination: AddressPort,
    /// For a delivery: the caller as the application sees it. Policy uses the address and not the port.
    pub caller: AddressPort,
    /// For a delivery: the caller's verified identity.
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
    /// For a delivery: a [`ListenerCheck`].
    pub listener_check: u8,
}
assert_size!(Ticket, 72);

impl Ticket {
    /// Makes a ticket that the hook has not seen.
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
            listener_check: ListenerCheck::LookUp as u8,
        }
    }
}
