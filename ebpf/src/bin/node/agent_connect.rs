//! The part of the connect hook that decides the agent's own connects.
//!
//! The agent makes a ticket for each connect before it dials. Only the ticket tells these sockets from
//! others: a mark, a uid, a process id or a cgroup can be forged or be shared.
//!
//! The verdict is written into the ticket, because errno cannot tell a denial from a failure to connect.
//! Only Allow lets bytes pass. With Ask the connection exists, and no byte passes before the evaluator in
//! userspace has allowed it. Pending means that the hook has not seen the connect.
//!
//! What fails, fails with EPERM, except for a delivery to an address where nothing listens: ECONNREFUSED, as
//! the kernel would answer.
//!
//! | ticket | condition | verdict in the ticket | connect | counter |
//! |---|---|---|---|---|
//! | any | already has a verdict | Deny | fails | `delivery_denied` |
//! | canary | always; the caller is noted as the agent's process | Deny | fails | none |
//! | any other | other network namespace or destination than the ticket's | Deny | fails | `delivery_denied` |
//! | any other | the kernel does not take an option of the socket, or a delivery's source | Deny | fails | `delivery_denied` |
//! | tunnel, plaintext | the socket gets the agent's mark | Allow | goes on | `ticket_passed` |
//! | tunnel, plaintext | no memory for the mark | Deny | fails | `delivery_denied` |
//! | delivery | the pod is not enrolled, is closed, or has no entry | Deny | fails | `delivery_denied` |
//! | delivery | the pod's policies have changed since the ticket was made | Stale | fails | `delivery_stale` |
//! | delivery | the destination is not an address of the pod | Deny | fails | `delivery_denied` |
//! | delivery | the policies deny it, or the maps lack an entry | Deny | fails | `delivery_denied` |
//! | delivery | nothing listens at the destination (`listener.rs`), and the ticket does not skip the look-up | NothingListens | fails | `delivery_nothing_listens` |
//! | delivery | the policies allow it | Allow | goes on | `delivery_allowed` |
//! | delivery | the policies depend on what userspace knows | Ask | goes on | `delivery_asked` |
//! | delivery | no memory for the caller's record | Deny | fails | `delivery_denied` |

use ambit_common::{
    AddressPort, Counter, FourTuple, Hook, KernelVerdict, ListenerCheck, NetnsCookie,
    PodAddressKey, Reason, RecordKind, SocketCookie, Ticket, TicketKind, TicketVerdict,
};
use ambit_ebpf::maps::POD_ADDRESSES;
use ambit_ebpf::pods::{self, PodLookup};
use ambit_ebpf::report::{DenialReport, count, report};
use ambit_ebpf::verdict::judge_connection;
use aya_ebpf::programs::SockAddrContext;

use crate::connect::{ConnectDecision, ConnectError};
use crate::{agent, dialled, listener, socket};

const TUNNEL: u8 = TicketKind::Tunnel as u8;
const PLAINTEXT: u8 = TicketKind::Plaintext as u8;
const DELIVERY: u8 = TicketKind::Delivery as u8;
const CANARY: u8 = TicketKind::Canary as u8;
const SKIP: u8 = ListenerCheck::Skip as u8;

/// Decides a connect of the agent. A ticket serves one connect, from the pod and to the destination that
/// it names.
#[inline(always)]
pub fn admit(
    ctx: &SockAddrContext,
    netns: NetnsCookie,
    cookie: SocketCookie,
    to: &AddressPort,
    ticket: &mut Ticket,
) -> ConnectDecision {
    if ticket.verdict != TicketVerdict::Pending as u8 {
        return deny(ticket, Reason::TicketMismatch);
    }
    if ticket.kind == CANARY {
        agent::note_process(ctx);
        return deny(ticket, Reason::Canary);
    }
    if ticket.netns != netns || ticket.destination != *to {
        return deny(ticket, Reason::TicketMismatch);
    }
    if !dialled::set_options(ctx) {
        return deny(ticket, Reason::SocketNotSet);
    }
    match ticket.kind {
        TUNNEL | PLAINTEXT => {
            if !agent::mark_socket(ctx) {
                return deny(ticket, Reason::NoMemory);
            }
            count(Counter::TicketPassed);
            ticket.verdict = TicketVerdict::Allow as u8;
            ConnectDecision::Pass
        }
        DELIVERY => deliver(ctx, cookie, ticket),
        _ => deny(ticket, Reason::TicketMismatch),
    }
}

/// Judges a delivery by the pod's policies. The caller's record is stored before the connection exists,
/// or else the application would take the caller for localhost.
#[inline(always)]
fn deliver(ctx: &SockAddrContext, cookie: SocketCookie, ticket: &mut Ticket) -> ConnectDecision {
    let pod = match pods::find(ticket.netns) {
        PodLookup::Enrolled(pod) => pod,
        PodLookup::NotEnrolled => return deny(ticket, Reason::PodClosed),
        PodLookup::EntryMissing => return deny(ticket, Reason::TablesIncomplete),
    };
    if !pod.is_served() {
        return deny(ticket, Reason::PodClosed);
    }
    if pod.generation != ticket.generation {
        count(Counter::DeliveryStale);
        ticket.verdict = TicketVerdict::Stale as u8;
        return ConnectDecision::Refuse(ConnectError::NotPermitted);
    }
    let address = ticket.destination.address;
    if POD_ADDRESSES
        .get_ptr(PodAddressKey {
            netns: ticket.netns,
            address,
        })
        .is_none()
    {
        return deny(ticket, Reason::ForeignAddress);
    }
    ticket.policy_set = pod.policy_set;
    let Some(judgement) = judge_connection(
        pod.policy_set,
        ticket.identity,
        &ticket.caller.address,
        &ticket.destination,
    ) else {
        return deny(ticket, Reason::TablesIncomplete);
    };
    ticket.alternative = judgement.alternative;
    let verdict = match judgement.verdict {
        KernelVerdict::Allow => TicketVerdict::Allow,
        KernelVerdict::Ask => TicketVerdict::Ask,
        KernelVerdict::Deny => return deny(ticket, Reason::DeniedByPolicy),
        KernelVerdict::NoAllow => return deny(ticket, Reason::NoAllowMatched),
        KernelVerdict::Refuse => return deny(ticket, Reason::PolicyNotEnforceable),
    };
    if ticket.listener_check != SKIP && !listener::exists(ctx, &ticket.destination) {
        count(Counter::DeliveryUnheard);
        ticket.verdict = TicketVerdict::NothingListens as u8;
        return ConnectDecision::Refuse(ConnectError::ConnectionRefused);
    }
    if !dialled::set_delivery_source(ctx, &address, cookie) {
        return deny(ticket, Reason::SocketNotSet);
    }
    if !socket::remember(ctx, RecordKind::DeliveryClient, ticket.caller, 0) {
        return deny(ticket, Reason::NoMemory);
    }
    count(match verdict {
        TicketVerdict::Ask => Counter::DeliveryAsked,
        _ => Counter::DeliveryAllowed,
    });
    ticket.verdict = verdict as u8;
    ConnectDecision::Pass
}

#[inline(always)]
fn deny(ticket: &mut Ticket, reason: Reason) -> ConnectDecision {
    ticket.verdict = TicketVerdict::Deny as u8;
    ticket.reason = reason as u8;
    if ticket.kind != CANARY {
        count(Counter::DeliveryDenied);
        report(&DenialReport {
            hook: Hook::Delivery,
            reason,
            netns: ticket.netns,
            connection: FourTuple {
                client: ticket.caller,
                server: ticket.destination,
            },
            identity: ticket.identity,
            policy_set: ticket.policy_set,
            alternative: ticket.alternative,
        });
    }
    ConnectDecision::Refuse(ConnectError::NotPermitted)
}
