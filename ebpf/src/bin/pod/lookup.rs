//! `sk_lookup` (Linux 5.9; `ingress_ifindex` 5.17): who receives a new inbound connection.
//!
//! Return values: SK_PASS lets the kernel go on, with the listener that the program assigned or,
//! without one, by its own look-up; SK_DROP resets the connection at once. The program runs for any
//! segment that no socket takes: a SYN, its retransmission, the ACK of a SYN cookie, a late segment of
//! a connection that has ended. It decides all of them alike.
//!
//! | from | connection | outcome |
//! |---|---|---|
//! | any | not TCP | passes |
//! | `lo` | with a record: redirected connect | outbound listener, or reset |
//! | `lo` | with a record: delivery | passes to the application |
//! | `lo` | agent's addresses or ports, without a record | reset, counted and not reported |
//! | `lo` | any other | passes |
//! | a source of the pod's own | with a record: delivery, or the pod's own connect | passes |
//! | a source of the pod's own | any other | reset, counted and not reported |
//! | elsewhere | to an address that is not the pod's | reset |
//! | elsewhere | to 15008 | HBONE listener, or reset |
//! | elsewhere | to another port of the agent | reset |
//! | elsewhere | from the node itself, to a declared probe port | passes |
//! | elsewhere | plaintext | passes, reset, or the plaintext listener, as policy says |

use ambit_common::{
    Address, Connection, Counter, DELIVERY_RANGE, Endpoint, Family, HBONE_PORT, Hook, IdentityId,
    Judgement, ListenerKind, OUTBOUND_RANGE, PodAddressKey, PodEntry, PodPortKey, Reason,
    RecordKind, SocketRecord, Verdict, listener_slot,
};
use ambit_ebpf::count::count;
use ambit_ebpf::maps::{NODE_CONNECTIONS, POD_ADDRESSES, PROBE_PORTS};
use ambit_ebpf::pods::{self, Enrolment};
use ambit_ebpf::report::{Denial, now_ns, report};
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

/// How long a connect of the node may take before it is no longer known as the node's.
const NODE_CONNECTION_NS: u64 = 10_000_000_000;

/// How long a handshake of the pod with itself may take. Linux gives up a connect after 127 seconds
/// (`tcp_syn_retries`).
const OWN_HANDSHAKE_NS: u64 = 150_000_000_000;

/// How long a repeated segment of a refused connection is the same denial.
const REFUSED_NS: u64 = 60_000_000_000;

#[sk_lookup]
pub fn ambit_sk_lookup(ctx: SkLookupContext) -> u32 {
    if read_field!(ctx.lookup, protocol) != IPPROTO_TCP {
        return SK_PASS;
    }
    let connection = connection(&ctx);
    if read_field!(ctx.lookup, ingress_ifindex) == LOOPBACK_IFINDEX {
        from_loopback(&ctx, &connection)
    } else if is_own_source(&connection.client.address) {
        from_own_source(&connection)
    } else {
        from_network(&ctx, &connection)
    }
}

/// Whether a source is one that only the pod itself has: loopback, or one of its addresses.
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
fn connection(ctx: &SkLookupContext) -> Connection {
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
    Connection {
        client: Endpoint::new(remote, u16::from_be(read_field!(ctx.lookup, remote_port))),
        server: Endpoint::new(local, read_field!(ctx.lookup, local_port) as u16),
    }
}

/// A segment on `lo`: nothing outside the pod's network namespace can put one there.
#[inline(always)]
fn from_loopback(ctx: &SkLookupContext, connection: &Connection) -> u32 {
    // SAFETY: the entry is this connection's: nothing else writes its four-tuple meanwhile.
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
fn recorded(ctx: &SkLookupContext, connection: &Connection, record: &SocketRecord) -> u32 {
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
        | None => refuse(connection, Reason::NoRecord, Counter::InboundRefused),
    }
}

/// A segment that is not on `lo` and claims to come from the pod itself.
///
/// Those that the pod's processes send to the pod's addresses travel over `lo`, but the kernel
/// names the device that has the address. A sender on the wire chooses the source: the kernel drops
/// a forged one for IPv4 only, and only without `accept_local`. So the source proves nothing. A
/// handshake that a socket in this network namespace has begun does: `sock_ops` records it before
/// the SYN leaves, and the record goes when the handshake ends. To ride on one, a sender would have
/// to hit its four-tuple while it is under way.
#[inline(always)]
fn from_own_source(connection: &Connection) -> u32 {
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
        // A redirected connect has a loopback destination, and so is on `lo`.
        Some(
            RecordKind::OutboundClient
            | RecordKind::OutboundAccepted
            | RecordKind::DeliveryAccepted
            | RecordKind::Node,
        )
        | None => refuse_own(),
    }
}

/// The pod's own connect to one of its own addresses.
#[inline(always)]
fn local(connection: &Connection) -> u32 {
    if imitates_agent(connection) {
        return refuse_own();
    }
    count(Counter::LoopbackPassed);
    SK_PASS
}

/// Refuses what claims to be the pod's own. Not reported: late segments of ended connections are as
/// frequent as anything else here, and would drown what operators have to see.
#[inline(always)]
fn refuse_own() -> u32 {
    count(Counter::LoopbackRefused);
    SK_DROP
}

/// Whether only the agent's own deliveries and redirects look like this: what
/// [`imitates_agent`], and from `::1` to the pod's own address.
#[inline(always)]
fn needs_record(connection: &Connection) -> bool {
    let Connection { client, server } = connection;
    let from_v6_loopback =
        !client.address.is_v4() && client.address.is_loopback() && !server.address.is_loopback();
    from_v6_loopback || imitates_agent(connection)
}

/// Whether this is from the delivery range, to the outbound range, or to a listener of the agent,
/// which no process of the pod may use.
#[inline(always)]
fn imitates_agent(connection: &Connection) -> bool {
    let Connection { client, server } = connection;
    client.address.in_v4_range(DELIVERY_RANGE)
        || server.address.in_v4_range(OUTBOUND_RANGE)
        || is_listener_port(server.port)
}

#[inline(always)]
fn is_listener_port(port: u16) -> bool {
    match pods::find(POD.load().netns) {
        Enrolment::Pod(pod) => pod.is_listener_port(port),
        Enrolment::None => false,
        Enrolment::Broken => true,
    }
}

#[inline(always)]
fn from_network(ctx: &SkLookupContext, connection: &Connection) -> u32 {
    let netns = POD.load().netns;
    let pod = match pods::find(netns) {
        Enrolment::Pod(pod) => pod,
        Enrolment::None => {
            return refuse(connection, Reason::PodClosed, Counter::InboundRefused);
        }
        Enrolment::Broken => {
            return refuse(
                connection,
                Reason::TablesIncomplete,
                Counter::InboundRefused,
            );
        }
    };
    if !pod.is_open() {
        return refuse(connection, Reason::PodClosed, Counter::InboundRefused);
    }
    let address = connection.server.address;
    if POD_ADDRESSES
        .get_ptr(PodAddressKey { netns, address })
        .is_none()
    {
        return refuse(connection, Reason::ForeignAddress, Counter::InboundRefused);
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
        return refuse(connection, Reason::ListenerPort, Counter::InboundRefused);
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

/// Whether this node's own kernel attests that the node itself dialled.
#[inline(always)]
fn is_from_node(connection: &Connection) -> bool {
    match NODE_CONNECTIONS.get_ptr(connection) {
        // SAFETY: the map's value, valid while the program runs.
        Some(since) => now_ns() - unsafe { *since } < NODE_CONNECTION_NS,
        None => false,
    }
}

#[inline(always)]
fn plaintext(ctx: &SkLookupContext, connection: &Connection, pod: &PodEntry) -> u32 {
    let Some(judgement) = judge_connection(
        pod.policy_set,
        IdentityId::NONE,
        &connection.client.address,
        &connection.server,
    ) else {
        return refuse(
            connection,
            Reason::TablesIncomplete,
            Counter::InboundRefused,
        );
    };
    match judgement.verdict {
        Verdict::Allow => {
            count(Counter::PlaintextAllowed);
            SK_PASS
        }
        Verdict::Ask => {
            let shard = spread(connection, pod.shards);
            assign(
                ctx,
                connection,
                ListenerKind::Plaintext,
                shard,
                Counter::PlaintextAsked,
            )
        }
        Verdict::Deny => deny(connection, pod, Reason::DeniedByPolicy, judgement),
        Verdict::NoAllow => deny(connection, pod, Reason::NoAllowMatched, judgement),
        Verdict::Refuse => deny(connection, pod, Reason::PolicyNotEnforceable, judgement),
    }
}

/// A shard for a connection: the same one for each of its segments, as SYN cookies need.
#[inline(always)]
fn spread(connection: &Connection, shards: u32) -> u32 {
    if shards == 0 {
        return 0;
    }
    let mixed = u32::from(connection.client.port).wrapping_mul(0x9e37_79b1);
    (mixed >> 16) % shards
}

/// Gives the connection to a listener of the agent. None there (a dead agent): reset.
#[inline(always)]
fn assign(
    ctx: &SkLookupContext,
    connection: &Connection,
    kind: ListenerKind,
    shard: u32,
    steered: Counter,
) -> u32 {
    let slot = listener_slot(kind, Family::of(&connection.server.address), shard);
    if LISTENERS.redirect_sk_lookup(ctx, slot, 0).is_err() {
        return refuse(connection, Reason::NoListener, Counter::InboundRefused);
    }
    count(steered);
    debug!(
        ctx,
        "steered port {} to slot {}", connection.server.port, slot
    );
    SK_PASS
}

#[inline(always)]
fn refuse(connection: &Connection, reason: Reason, counter: Counter) -> u32 {
    drop_with(
        counter,
        &Denial::without_policy(Hook::Lookup, reason, POD.load().netns, *connection),
    )
}

#[inline(always)]
fn deny(connection: &Connection, pod: &PodEntry, reason: Reason, judgement: Judgement) -> u32 {
    drop_with(
        Counter::PlaintextDenied,
        &Denial {
            hook: Hook::Lookup,
            reason,
            netns: POD.load().netns,
            connection: *connection,
            identity: IdentityId::NONE,
            policy_set: pod.policy_set,
            alternative: judgement.alternative,
        },
    )
}

/// Counts and reports a denial once for all segments of its connection.
#[inline(always)]
fn drop_with(counter: Counter, denial: &Denial) -> u32 {
    let now = now_ns();
    if let Some(since) = REFUSED.get_ptr(denial.connection) {
        // SAFETY: the map's value, valid while the program runs.
        if now - unsafe { *since } < REFUSED_NS {
            count(Counter::InboundRepeated);
            return SK_DROP;
        }
    }
    let _ = REFUSED.insert(denial.connection, now, 0);
    count(counter);
    report(denial);
    SK_DROP
}
