//! Connects of the agent's own sockets, known by the ticket that the agent made for each: never by
//! mark, uid, pid or cgroup, which can be forged or may not hold.
//!
//! The verdict is written into the ticket: errno cannot tell a denial from a failure to connect.

use ambit_common::{
    Connection, Counter, Endpoint, Hook, NetnsCookie, PodAddressKey, Reason, RecordKind, Ticket,
    TicketKind, TicketVerdict, Verdict,
};
use ambit_ebpf::count::count;
use ambit_ebpf::maps::POD_ADDRESSES;
use ambit_ebpf::pods::{self, Enrolment};
use ambit_ebpf::report::{Denial, report};
use ambit_ebpf::verdict::judge_connection;
use aya_ebpf::programs::SockAddrContext;

use crate::outcome::Outcome;
use crate::{agent_process, agents, socket};

const TUNNEL: u8 = TicketKind::Tunnel as u8;
const PLAINTEXT: u8 = TicketKind::Plaintext as u8;
const DELIVERY: u8 = TicketKind::Delivery as u8;
const CANARY: u8 = TicketKind::Canary as u8;

/// Decides a connect of the agent. A ticket serves one connect, from the pod and to the
/// destination that it names.
#[inline(always)]
pub fn admit(
    ctx: &SockAddrContext,
    netns: NetnsCookie,
    dialled: &Endpoint,
    ticket: &mut Ticket,
) -> Outcome {
    if ticket.verdict != TicketVerdict::Pending as u8 {
        return deny(ticket, Reason::TicketMismatch);
    }
    if ticket.kind == CANARY {
        agent_process::remember(ctx);
        return deny(ticket, Reason::Canary);
    }
    if ticket.netns != netns || ticket.destination != *dialled {
        return deny(ticket, Reason::TicketMismatch);
    }
    match ticket.kind {
        TUNNEL | PLAINTEXT => {
            if !agents::mark(ctx) {
                return deny(ticket, Reason::NoMemory);
            }
            count(Counter::TicketPassed);
            ticket.verdict = TicketVerdict::Allow as u8;
            Outcome::Pass
        }
        DELIVERY => deliver(ctx, ticket),
        _ => deny(ticket, Reason::TicketMismatch),
    }
}

/// Judges a delivery by the pod's policies. The caller's record is in place before the connection
/// exists, or the application would take the caller for localhost.
#[inline(always)]
fn deliver(ctx: &SockAddrContext, ticket: &mut Ticket) -> Outcome {
    let pod = match pods::find(ticket.netns) {
        Enrolment::Pod(pod) => pod,
        Enrolment::None => return deny(ticket, Reason::PodClosed),
        Enrolment::Broken => return deny(ticket, Reason::TablesIncomplete),
    };
    if !pod.is_open() {
        return deny(ticket, Reason::PodClosed);
    }
    if pod.generation != ticket.generation {
        count(Counter::DeliveryStale);
        ticket.verdict = TicketVerdict::Stale as u8;
        return Outcome::Refuse;
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
        Verdict::Allow => TicketVerdict::Allow,
        Verdict::Ask => TicketVerdict::Ask,
        Verdict::Deny => return deny(ticket, Reason::DeniedByPolicy),
        Verdict::NoAllow => return deny(ticket, Reason::NoAllowMatched),
        Verdict::Refuse => return deny(ticket, Reason::PolicyNotEnforceable),
    };
    if !socket::remember(ctx, RecordKind::DeliveryClient, ticket.caller, 0) {
        return deny(ticket, Reason::NoMemory);
    }
    count(match verdict {
        TicketVerdict::Ask => Counter::DeliveryAsked,
        _ => Counter::DeliveryAllowed,
    });
    ticket.verdict = verdict as u8;
    Outcome::Pass
}

#[inline(always)]
fn deny(ticket: &mut Ticket, reason: Reason) -> Outcome {
    ticket.verdict = TicketVerdict::Deny as u8;
    ticket.reason = reason as u8;
    if ticket.kind != CANARY {
        count(Counter::DeliveryDenied);
        report(&Denial {
            hook: Hook::Delivery,
            reason,
            netns: ticket.netns,
            connection: Connection {
                client: ticket.caller,
                server: ticket.destination,
            },
            identity: ticket.identity,
            policy_set: ticket.policy_set,
            alternative: ticket.alternative,
        });
    }
    Outcome::Refuse
}
