//! `sock_ops` (Linux 4.13): moves a connection's record from the client's socket, over the
//! handshake, to the accepted socket.
//!
//! Return value: always 1, which the kernel ignores for the operations handled here.
//!
//! | operation | does |
//! |---|---|
//! | TCP_CONNECT_CB, before the SYN leaves | the client's record → the pod's `HANDSHAKES` |
//! | the same, no record, to an address of the pod itself | a record of that → `HANDSHAKES` |
//! | STATE_CB, SYN_SENT → not established, or closed | the handshake is removed |
//! | PASSIVE_ESTABLISHED_CB, before accept() | the handshake → the accepted socket's record |
//!
//! A handshake that cannot be stored is counted, and `sk_lookup` drops the SYN: without a record
//! nothing enters by the agent's loopback addresses, and nothing from the pod's own to the pod's
//! own.
//!
//! Both ends of a redirected connection and of a delivery are on the pod's own loopback, where there
//! is no path to probe: they use CUBIC, since the timers of an algorithm that paces, such as BBR,
//! cost a tenth of the throughput there. Where the kernel has no CUBIC they stay as they are.

use ambit_common::{
    Address, Connection, Counter, Endpoint, NetnsCookie, PodAddressKey, RecordKind, SocketRecord,
};
use ambit_ebpf::count::count;
use ambit_ebpf::maps::{NODE_CONNECTIONS, POD_ADDRESSES};
use ambit_ebpf::report::now_ns;
use ambit_ebpf::{read_field, read_v6};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
    BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, BPF_TCP_ESTABLISHED,
    BPF_TCP_SYN_SENT, bpf_sock,
};
use aya_ebpf::helpers::bpf_get_netns_cookie;
use aya_ebpf::helpers::generated::{bpf_setsockopt, bpf_sk_storage_get};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;

use crate::maps::{HANDSHAKES_OF, SOCKETS};

const AF_INET: u32 = 2;
const IPPROTO_TCP: i32 = 6;
const TCP_CONGESTION: i32 = 13;
const DONE: u32 = 1;

#[sock_ops]
pub fn ambit_sock_ops(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => connecting(&ctx),
        BPF_SOCK_OPS_STATE_CB => state_changed(&ctx),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => accepted(&ctx),
        _ => {}
    }
    DONE
}

#[inline(always)]
fn connecting(ctx: &SockOpsContext) {
    let connection = as_client(ctx);
    let kept = match stored(ctx) {
        Some(record) => match record.kind() {
            Some(RecordKind::OutboundClient | RecordKind::DeliveryClient) => {
                stop_pacing(ctx);
                begin(ctx, &connection, record)
            }
            Some(RecordKind::Node) => NODE_CONNECTIONS.insert(connection, now_ns(), 0).is_ok(),
            Some(
                RecordKind::OutboundAccepted
                | RecordKind::DeliveryAccepted
                | RecordKind::LocalClient,
            )
            | None => return,
        },
        None if is_to_itself(ctx, &connection) => {
            begin(ctx, &connection, &local_client(&connection))
        }
        None => return,
    };
    if !kept {
        count(Counter::HandshakeLost);
    }
    // A refusal of the flag would leave one entry behind, which its four-tuple's next use replaces.
    let _ = ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
}

/// Keeps a handshake for `sk_lookup` and the accepted socket. `false`: there is no room, or the
/// pod is not enrolled.
#[inline(always)]
#[must_use]
fn begin(ctx: &SockOpsContext, connection: &Connection, record: &SocketRecord) -> bool {
    // SAFETY: the inner map is only used through helpers, and stays while it is used.
    match unsafe { HANDSHAKES_OF.get(&netns(ctx)) } {
        Some(handshakes) => handshakes.insert(*connection, *record, 0).is_ok(),
        None => false,
    }
}

/// Whether a socket of an enrolled pod dials one of the pod's own addresses. Only this tells
/// `sk_lookup` that a segment with the pod's own source is the pod's: see `from_own_source` there.
#[inline(always)]
fn is_to_itself(ctx: &SockOpsContext, connection: &Connection) -> bool {
    POD_ADDRESSES
        .get_ptr(PodAddressKey {
            netns: netns(ctx),
            address: connection.server.address,
        })
        .is_some()
}

#[inline(always)]
fn local_client(connection: &Connection) -> SocketRecord {
    SocketRecord {
        since_ns: now_ns(),
        endpoint: connection.client,
        kind: RecordKind::LocalClient as u8,
        shard: 0,
        zero: 0,
    }
}

/// Removes a handshake that failed, or whose client has closed. Most are gone by then: what is left
/// are those whose server never completed them, and the node's to other nodes.
#[inline(always)]
fn state_changed(ctx: &SockOpsContext) {
    let (from, to) = (ctx.arg(0), ctx.arg(1));
    let failed = from == BPF_TCP_SYN_SENT && to != BPF_TCP_ESTABLISHED;
    if !failed && to != BPF_TCP_CLOSE {
        return;
    }
    let connection = as_client(ctx);
    // SAFETY: as in `begin`.
    if let Some(handshakes) = unsafe { HANDSHAKES_OF.get(&netns(ctx)) } {
        let _ = handshakes.remove(connection);
    }
    let _ = NODE_CONNECTIONS.remove(connection);
}

#[inline(always)]
fn accepted(ctx: &SockOpsContext) {
    let connection = as_server(ctx);
    let _ = NODE_CONNECTIONS.remove(connection);
    // SAFETY: as in `begin`.
    let Some(handshakes) = (unsafe { HANDSHAKES_OF.get(&netns(ctx)) }) else {
        return;
    };
    // SAFETY: the entry is this connection's: nothing else writes its four-tuple meanwhile.
    let Some(handshake) = (unsafe { handshakes.get(connection) }) else {
        return;
    };
    let mut record = *handshake;
    match record.kind() {
        Some(RecordKind::OutboundClient) => {
            record.kind = RecordKind::OutboundAccepted as u8;
            hand_over(ctx, &mut record);
            stop_pacing(ctx);
        }
        Some(RecordKind::DeliveryClient) => {
            record.kind = RecordKind::DeliveryAccepted as u8;
            hand_over(ctx, &mut record);
            stop_pacing(ctx);
        }
        Some(RecordKind::LocalClient) => {
            if looks_delivered(&connection) {
                record.kind = RecordKind::DeliveryAccepted as u8;
                hand_over(ctx, &mut record);
            }
        }
        Some(RecordKind::OutboundAccepted | RecordKind::DeliveryAccepted | RecordKind::Node)
        | None => return,
    }
    let _ = handshakes.remove(connection);
}

/// Whether the application would not be told its caller without a record, because a delivery has
/// the same source: from `::1` to an address of the pod.
#[inline(always)]
fn looks_delivered(connection: &Connection) -> bool {
    let client = &connection.client.address;
    !client.is_v4() && client.is_loopback()
}

#[inline(always)]
fn hand_over(ctx: &SockOpsContext, record: &mut SocketRecord) {
    if !store(ctx, record) {
        count(Counter::AcceptedLost);
    }
}

#[inline(always)]
fn stop_pacing(ctx: &SockOpsContext) {
    let mut cubic = *b"cubic\0\0\0";
    // SAFETY: the helper takes this context, and reads the name, whose length it is told.
    let _ = unsafe {
        bpf_setsockopt(
            ctx.as_ptr(),
            IPPROTO_TCP,
            TCP_CONGESTION,
            cubic.as_mut_ptr().cast(),
            cubic.len() as i32,
        )
    };
}

#[inline(always)]
fn socket(ctx: &SockOpsContext) -> *mut bpf_sock {
    read_field!(ctx.ops, __bindgen_anon_2.sk)
}

#[inline(always)]
fn stored(ctx: &SockOpsContext) -> Option<&SocketRecord> {
    let sk = socket(ctx);
    if sk.is_null() {
        return None;
    }
    // SAFETY: `sk` is not null; the storage lives as long as the socket.
    unsafe {
        bpf_sk_storage_get(
            (&raw const SOCKETS).cast_mut().cast(),
            sk.cast(),
            core::ptr::null_mut(),
            0,
        )
        .cast::<SocketRecord>()
        .as_ref()
    }
}

#[inline(always)]
fn store(ctx: &SockOpsContext, record: &mut SocketRecord) -> bool {
    let sk = socket(ctx);
    if sk.is_null() {
        return false;
    }
    // SAFETY: `sk` is not null, and the helper copies the record.
    let stored = unsafe {
        bpf_sk_storage_get(
            (&raw const SOCKETS).cast_mut().cast(),
            sk.cast(),
            core::ptr::from_mut(record).cast(),
            BPF_SK_STORAGE_GET_F_CREATE.into(),
        )
    };
    !stored.is_null()
}

#[inline(always)]
fn netns(ctx: &SockOpsContext) -> NetnsCookie {
    // SAFETY: the helper takes this program type's context (Linux 5.15).
    NetnsCookie(unsafe { bpf_get_netns_cookie(ctx.as_ptr()) })
}

/// The connection, where this socket is its client.
#[inline(always)]
fn as_client(ctx: &SockOpsContext) -> Connection {
    Connection {
        client: local(ctx),
        server: remote(ctx),
    }
}

/// The connection, where this socket is its server.
#[inline(always)]
fn as_server(ctx: &SockOpsContext) -> Connection {
    Connection {
        client: remote(ctx),
        server: local(ctx),
    }
}

#[inline(always)]
fn local(ctx: &SockOpsContext) -> Endpoint {
    let (v4_be, v6_be) = (
        read_field!(ctx.ops, local_ip4),
        read_v6!(ctx.ops, local_ip6),
    );
    Endpoint::new(
        address(ctx, v4_be, v6_be),
        read_field!(ctx.ops, local_port) as u16,
    )
}

#[inline(always)]
fn remote(ctx: &SockOpsContext) -> Endpoint {
    let (v4_be, v6_be) = (
        read_field!(ctx.ops, remote_ip4),
        read_v6!(ctx.ops, remote_ip6),
    );
    let port_be = read_field!(ctx.ops, remote_port);
    Endpoint::new(address(ctx, v4_be, v6_be), u32::from_be(port_be) as u16)
}

#[inline(always)]
fn address(ctx: &SockOpsContext, v4_be: u32, v6_be: [u32; 4]) -> Address {
    if ctx.family() == AF_INET {
        Address::from_v4_be(v4_be)
    } else {
        Address::from_v6_be(v6_be)
    }
}
