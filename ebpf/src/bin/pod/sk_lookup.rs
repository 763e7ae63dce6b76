//! `sk_lookup` (Linux 5.9; `ingress_ifindex` 5.17): which listener receives a new connection in the pod's
//! network namespace.
//!
//! Return values: SK_PASS lets the connection in, to the listener that the program assigned or, if it
//! assigned none, to the one that the kernel's own look-up finds. SK_DROP makes the kernel reset the
//! connection. The program runs for every segment that no socket takes: a SYN, its retransmission, the ACK
//! of a SYN cookie, or a late segment of a connection that has ended. It decides all of them alike.
//!
//! The hook sees both directions: inbound connections from the network, and the pod's own outbound
//! connections that the connect hook has redirected to the agent over `lo`. So what it refuses is counted
//! as `sk_lookup_refused`, and not as inbound.
//!
//! | segment from | connection | return value | counter |
//! |---|---|---|---|
//! | any | not TCP | SK_PASS | none |
//! | none | not a segment: the connect hook asks whether a socket listens | SK_PASS | none |
//! | `lo` | redirected connect, by its record | SK_PASS, outbound listener | `outbound_steered` |
//! | `lo` | delivery, by its record | SK_PASS | `delivery_steered` |
//! | `lo` | the pod's connect to itself, by its record | SK_PASS | `loopback_passed` |
//! | `lo` | a record of another kind | SK_DROP, reported | `sk_lookup_refused` |
//! | `lo` | the agent's addresses or ports, without a record or as the pod's connect to itself | SK_DROP | `loopback_refused` |
//! | `lo` | any other | SK_PASS | `loopback_passed` |
//! | elsewhere, with a source of the pod's own | delivery, by its record | SK_PASS | `delivery_steered` |
//! | elsewhere, with a source of the pod's own | the pod's connect to itself, by its record | SK_PASS | `loopback_passed` |
//! | elsewhere, with a source of the pod's own | any other | SK_DROP | `loopback_refused` |
//! | elsewhere | the pod is closed, or has no entry | SK_DROP, reported | `sk_lookup_refused` |
//! | elsewhere | to an address that is not the pod's | SK_DROP, reported | `sk_lookup_refused` |
//! | elsewhere | to port 15008 | SK_PASS, HBONE listener | `hbone_steered` |
//! | elsewhere | to the port of another listener of the agent | SK_DROP, reported | `sk_lookup_refused` |
//! | elsewhere | from the node itself, to a declared probe port | SK_PASS | `probe_admitted` |
//! | elsewhere | plaintext that the policies allow | SK_PASS | `plaintext_allowed` |
//! | elsewhere | plaintext whose verdict needs userspace | SK_PASS, plaintext listener | `plaintext_asked` |
//! | elsewhere | plaintext that the policies deny | SK_DROP, reported | `plaintext_denied` |
//! | elsewhere | plaintext, and the policy maps lack an entry | SK_DROP, reported | `sk_lookup_refused` |
//! | any | to a listener of the agent whose slot is empty | SK_DROP, reported | `sk_lookup_refused` |
//! | any | a further segment of a connection that was refused and reported in the last minute | SK_DROP | `sk_lookup_refused_again` |

use ambit_common::{
    Address, AddressPort, Counter, DELIVERY_RANGE, FourTuple, HBONE_PORT, Hook, IdentityId,
    IpFamily, Judgement, KernelVerdict, LOOKUP_SOURCE_PORT, ListenerKind, OUTBOUND_RANGE,
    PodAddressKey, PodEntry, PodPortKey, Reason, RecordKind, SocketRecord, listener_slot,
};
use ambit_ebpf::maps::{NODE_CONNECTIONS, POD_ADDRESSES, PROBE_PORTS};
use ambit_ebpf::pods::{self, PodLookup};
use ambit_ebpf::report::{DenialReport, count, now_ns, report};
use ambit_ebpf::verdict::judge_connection;
use ambit_ebpf::{read_field, read_v6};
use aya_ebpf::bindings::sk_action::{SK_DROP, SK_PASS};
use aya_ebpf::macros::sk_lookup;
use aya_ebpf::programs::SkLookupContext;
use aya_log_ebpf::debug;

use crate::maps::{HANDSHAKES, LISTENERS, POD, REFUSED};

const IPPROTO_TCP: u32 = 6;
const AF_INET: u32 = 2;
const LOOPBACK_IFINDEX: u32 = 1;
/// What a look-up has that no segment causes.
const NO_IFINDEX: u32 = 0;

/// How long a connect of the node is known as the node's.
const NODE_CONNECTION_NS: u64 = 10_000_000_000;

/// How long a handshake of the pod with itself may take. With its default settings, Linux gives up a
/// connect after 127 seconds (`tcp_syn_retries`).
const OWN_HANDSHAKE_NS: u64 = 150_000_000_000;

/// How long further segments of a refused connection belong to the same denial.
const REFUSED_NS: u64 = 60_000_000_000;

#[sk_lookup]
pub fn ambit_sk_lookup(ctx: SkLookupContext) -> u32 {
    if read_field!(ctx.lookup, protocol) != IPPROTO_TCP {
        return SK_PASS;
    }
    let connection = connection(&ctx);
    let ifindex = read_field!(ctx.lookup, ingress_ifindex);
    if ifindex == NO_IFINDEX && connection.client.port == LOOKUP_SOURCE_PORT {
        return SK_PASS;
    }
    if ifindex == LOOPBACK_IFINDEX {
        from_loopback(&ctx, &connection)
    } else if is_own_source(&connection.client.address) {
        from_own_source(&connection)
    } else {
        from_network(&ctx, &connection)
    }
}

/// Whether a source address is one that only the pod itself has: loopback, or one of its addresses.
#[inline(always)]
fn is_own_source(address: &Address) -> bool {
    let netns = POD.load().netns;
    address.is_loopback()
        || POD_ADDRESSES
            .get_ptr(PodAddressKey {
                netns,
                address: *address,
            })
            .is_some()
}

#[inline(always)]
fn connection(ctx: &SkLookupContext) -> FourTuple {
    let (local_v4, remote_v4) = (
        read_field!(ctx.lookup, local_ip4),
        read_field!(ctx.lookup, remote_ip4),
    );
    let (local_v6, remote_v6) = (
        read_v6!(ctx.lookup, local_ip6),
        read_v6!(ctx.lookup, remote_ip6),
    );
    let (local, remote) = if read_field!(ctx.lookup, family) == AF_INET {
        (
            Address::from_v4_be(local_v4),
            Address::from_v4_be(remote_v4),
        )
    } else {
        (
            Address::from_v6_be(local_v6),
            Address::from_v6_be(remote_v6),
        )
    };
    FourTuple {
        client: AddressPort::new(remote, u16::from_be(read_field!(ctx.lookup, remote_port))),
        server: AddressPort::new(local, read_field!(ctx.lookup, local_port) as u16),
    }
}

/// Decides a segment on `lo`. Nothing outside the pod's network namespace can send one there.
#[inline(always)]
fn from_loopback(ctx: &SkLookupContext, connection: &FourTuple) -> u32 {
    // SAFETY: the entry belongs to this connection: nothing else writes its four-tuple meanwhile.
    if let Some(record) = unsafe { HANDSHAKES.get(connection) } {
        return recorded(ctx, connection, record);
    }
    if needs_record(connection) {
        return refuse_own();
    }
    count(Counter::LoopbackPassed);
    SK_PASS
}

#[inline(always)]
fn recorded(ctx: &SkLookupContext, connection: &FourTuple, record: &SocketRecord) -> u32 {
    match record.kind() {
        Some(RecordKind::OutboundClient) => {
            let shard = u32::from(record.shard);
            assign(
                ctx,
                connection,
                ListenerKind::Outbound,
                shard,
                Counter::OutboundSteered,
            )
        }
        Some(RecordKind::DeliveryClient) => {
            count(Counter::DeliverySteered);
            SK_PASS
        }
        Some(RecordKind::LocalClient) => local(connection),
        Some(RecordKind::OutboundAccepted | RecordKind::DeliveryAccepted | RecordKind::Node)
        | None => refuse(connection, Reason::NoRecord, Counter::SkLookupRefused),
    }
}

/// Decides a segment that is not on `lo` and claims to come from the pod itself.
///
/// Segments that the pod's processes send to the pod's addresses travel over `lo`, but the kernel names
/// the device that has the address. A sender on the wire chooses the source address: the kernel drops a
/// forged one for IPv4 only, and only without `accept_local`. So the source proves nothing. A handshake
/// that a socket in this network namespace has begun is proof: `sock_ops` records it before the SYN
/// leaves, and removes the record when the handshake ends. To abuse one, a sender would have to hit its
/// four-tuple during the handshake.
#[inline(always)]
fn from_own_source(connection: &FourTuple) -> u32 {
    // SAFETY: as in `from_loopback`.
    let Some(record) = (unsafe { HANDSHAKES.get(connection) }) else {
        return refuse_own();
    };
    if now_ns() - record.since_ns > OWN_HANDSHAKE_NS {
        return refuse_own();
    }
    match record.kind() {
        Some(RecordKind::DeliveryClient) => {
            count(Counter::DeliverySteered);
            SK_PASS
        }
        Some(RecordKind::LocalClient) => local(connection),
        // A redirected connect has a loopback destination, so it is on `lo`.
        Some(
            RecordKind::OutboundClient
            | RecordKind::OutboundAccepted
            | RecordKind::DeliveryAccepted
            | RecordKind::Node,
        )
        | None => refuse_own(),
    }
}

/// Decides a connect of the pod to one of its own addresses.
#[inline(always)]
fn local(connection: &FourTuple) -> u32 {
    if imitates_agent(connection) {
        return refuse_own();
    }
    count(Counter::LoopbackPassed);
    SK_PASS
}

/// Refuses a segment that claims to be the pod's own. It is not reported: late segments of ended
/// connections are frequent here, and would hide what operators have to see.
#[inline(always)]
fn refuse_own() -> u32 {
    count(Counter::LoopbackRefused);
    SK_DROP
}

/// Whether only the agent's deliveries and redirected connects look like this: those that
/// [`imitates_agent`] finds, and connections from `::1` to the pod's own address.
#[inline(always)]
fn needs_record(connection: &FourTuple) -> bool {
    let FourTuple { client, server } = connection;
    let from_v6_loopback =
        !client.address.is_v4() && client.address.is_loopback() && !server.address.is_loopback();
    from_v6_loopback || imitates_agent(connection)
}

/// Whether a connection comes from the delivery range, or goes to the outbound range or to a listener of
/// the agent. No process of the pod may do that.
#[inline(always)]
fn imitates_agent(connection: &FourTuple) -> bool {
    let FourTuple { client, server } = connection;
    client.address.in_v4_range(DELIVERY_RANGE)
        || server.address.in_v4_range(OUTBOUND_RANGE)
        || is_listener_port(server.port)
}

#[inline(always)]
fn is_listener_port(port: u16) -> bool {
    match pods::find(POD.load().netns) {
        PodLookup::Enrolled(pod) => pod.is_listener_port(port),
        PodLookup::NotEnrolled => false,
        PodLookup::EntryMissing => true,
    }
}

#[inline(always)]
fn from_network(ctx: &SkLookupContext, connection: &FourTuple) -> u32 {
    let netns = POD.load().netns;
    let pod = match pods::find(netns) {
        PodLookup::Enrolled(pod) => pod,
        PodLookup::NotEnrolled => {
            return refuse(connection, Reason::PodClosed, Counter::SkLookupRefused);
        }
        PodLookup::EntryMissing => {
            return refuse(
                connection,
                Reason::TablesIncomplete,
                Counter::SkLookupRefused,
            );
        }
    };
    if !pod.is_served() {
        return refuse(connection, Reason::PodClosed, Counter::SkLookupRefused);
    }
    let address = connection.server.address;
    if POD_ADDRESSES
        .get_ptr(PodAddressKey { netns, address })
        .is_none()
    {
        return refuse(connection, Reason::ForeignAddress, Counter::SkLookupRefused);
    }
    let port = connection.server.port;
    if port == HBONE_PORT {
        let shard = spread(connection, pod.shards);
        return assign(
            ctx,
            connection,
            ListenerKind::Hbone,
            shard,
            Counter::HboneSteered,
        );
    }
    if pod.is_listener_port(port) {
        return refuse(connection, Reason::ListenerPort, Counter::SkLookupRefused);
    }
    if is_from_node(connection)
        && PROBE_PORTS
            .get_ptr(PodPortKey {
                netns,
                port,
                zero: [0; 3],
            })
            .is_some()
    {
        count(Counter::ProbeAdmitted);
        return SK_PASS;
    }
    plaintext(ctx, connection, pod)
}

/// Whether this node's kernel has recorded that the node itself dialled.
#[inline(always)]
fn is_from_node(connection: &FourTuple) -> bool {
    match NODE_CONNECTIONS.get_ptr(connection) {
        // SAFETY: a map value is valid while the program runs.
        Some(since) => now_ns() - unsafe { *since } < NODE_CONNECTION_NS,
        None => false,
    }
}

#[inline(always)]
fn plaintext(ctx: &SkLookupContext, connection: &FourTuple, pod: &PodEntry) -> u32 {
    let Some(judgement) = judge_connection(
        pod.policy_set,
        IdentityId::NONE,
        &connection.client.address,
        &connection.server,
    ) else {
        return refuse(
            connection,
            Reason::TablesIncomplete,
            Counter::SkLookupRefused,
        );
    };
    match judgement.verdict {
        KernelVerdict::Allow => {
            count(Counter::PlaintextAllowed);
            SK_PASS
        }
        KernelVerdict::Ask => {
            let shard = spread(connection, pod.shards);
            assign(
                ctx,
                connection,
                ListenerKind::Plaintext,
                shard,
                Counter::PlaintextAsked,
            )
        }
        KernelVerdict::Deny => deny(connection, pod, Reason::DeniedByPolicy, judgement),
        KernelVerdict::NoAllow => deny(connection, pod, Reason::NoAllowMatched, judgement),
        KernelVerdict::Refuse => deny(connection, pod, Reason::PolicyNotEnforceable, judgement),
    }
}

/// Returns the shard for a connection. It is the same for each of its segments, which SYN cookies need.
#[inline(always)]
fn spread(connection: &FourTuple, shards: u32) -> u32 {
    if shards == 0 {
        return 0;
    }
    let mixed = u32::from(connection.client.port).wrapping_mul(0x9e37_79b1);
    (mixed >> 16) % shards
}

/// Assigns the connection to a listener of the agent. If the slot is empty, because the agent is dead or
/// starting, the connection is refused.
#[inline(always)]
fn assign(
    ctx: &SkLookupContext,
    connection: &FourTuple,
    kind: ListenerKind,
    shard: u32,
    steered: Counter,
) -> u32 {
    let slot = listener_slot(kind, IpFamily::of(&connection.server.address), shard);
    if LISTENERS.redirect_sk_lookup(ctx, slot, 0).is_err() {
        return refuse(connection, Reason::NoListener, Counter::SkLookupRefused);
    }
    count(steered);
    debug!(
        ctx,
        "steered port {} to slot {}", connection.server.port, slot
    );
    SK_PASS
}

#[inline(always)]
fn refuse(connection: &FourTuple, reason: Reason, counter: Counter) -> u32 {
    drop_with(
        counter,
        &DenialReport::without_policy(Hook::SkLookup, reason, POD.load().netns, *connection),
    )
}

#[inline(always)]
fn deny(connection: &FourTuple, pod: &PodEntry, reason: Reason, judgement: Judgement) -> u32 {
    drop_with(
        Counter::PlaintextDenied,
        &DenialReport {
            hook: Hook::SkLookup,
            reason,
            netns: POD.load().netns,
            connection: *connection,
            identity: IdentityId::NONE,
            policy_set: pod.policy_set,
            alternative: judgement.alternative,
        },
    )
}

/// Refuses a connection. Counts and reports it once for all of its segments.
#[inline(always)]
fn drop_with(counter: Counter, denial: &DenialReport) -> u32 {
    let now = now_ns();
    if let Some(since) = REFUSED.get_ptr(denial.connection) {
        // SAFETY: a map value is valid while the program runs.
        if now - unsafe { *since } < REFUSED_NS {
            count(Counter::SkLookupRefusedAgain);
            return SK_DROP;
        }
    }
    let _ = REFUSED.insert(denial.connection, now, 0);
    count(counter);
    report(denial);
    SK_DROP
}
