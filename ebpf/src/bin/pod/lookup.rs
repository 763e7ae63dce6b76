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
//! | own | with a record: redirected connect | outbound listener, or reset |
//! | own | with a record: delivery | passes to the application |
//! | own | agent's addresses or ports, without a record | reset, counted and not reported |
//! | own | any other | passes |
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
use ambit_ebpf::maps::{NODE_CONNECTIONS, POD_ADDRESSES, PODS, PROBE_PORTS};
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

/// How long a repeated segment of a refused connection is the same denial.
const REFUSED_NS: u64 = 60_000_000_000;

#[sk_lookup]
pub fn ambit_sk_lookup(ctx: SkLookupContext) -> u32 {
    if read_field!(ctx.lookup, protocol) != IPPROTO_TCP {
        return SK_PASS;
    }
    let connection = connection(&ctx);
    if is_own_traffic(&ctx, &connection) {
        from_pod_itself(&ctx, &connection)
    } else {
        from_network(&ctx, &connection)
    }
}

/// Whether the pod itself sent this. A segment to one of the pod's own addresses travels over `lo`,
/// but the kernel names the device that has the address. From outside, a loopback source is
/// dropped before it comes here, and so is an IPv4 source that is the pod's own; with a forged IPv6
/// one no handshake can be completed.
#[inline(always)]
fn is_own_traffic(ctx: &SkLookupContext, connection: &Connection) -> bool {
    let address = connection.client.address;
    let netns = POD.load().netns;
    read_field!(ctx.lookup, ingress_ifindex) == LOOPBACK_IFINDEX
        || address.is_loopback()
        || POD_ADDRESSES
            .get_ptr(PodAddressKey { netns, address })
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

#[inline(always)]
fn from_pod_itself(ctx: &SkLookupContext, connection: &Connection) -> u32 {
    // SAFETY: the entry is this connection's: nothing else writes its four-tuple meanwhile.
    if let Some(record) = unsafe { HANDSHAKES.get(connection) } {
        return recorded(ctx, connection, record);
    }
    if needs_record(connection) {
        // Nobody else's connection: late segments of ended deliveries are as frequent as those, and
        // would drown what operators have to see.
        count(Counter::LoopbackRefused);
        return SK_DROP;
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
        _ => refuse(connection, Reason::NoRecord, Counter::InboundRefused),
    }
}

/// Whether only the agent's own deliveries and redirects look like this: from the delivery
/// range, to the outbound range, from `::1` to the pod's own address, to a listener of the agent.
#[inline(always)]
fn needs_record(connection: &Connection) -> bool {
    let Connection { client, server } = connection;
    let from_v6_loopback =
        !client.address.is_v4() && client.address.is_loopback() && !server.address.is_loopback();
    client.address.in_v4_range(DELIVERY_RANGE)
        || server.address.in_v4_range(OUTBOUND_RANGE)
        || from_v6_loopback
        || is_listener_port(server.port)
}

#[inline(always)]
fn is_listener_port(port: u16) -> bool {
    // SAFETY: an entry is replaced as a whole.
    match unsafe { PODS.get(POD.load().netns) } {
        Some(pod) => pod.is_listener_port(port),
        None => false,
    }
}

#[inline(always)]
fn from_network(ctx: &SkLookupContext, connection: &Connection) -> u32 {
    let netns = POD.load().netns;
    // SAFETY: an entry is replaced as a whole.
    let Some(pod) = (unsafe { PODS.get(netns) }) else {
        return refuse(connection, Reason::PodClosed, Counter::InboundRefused);
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
