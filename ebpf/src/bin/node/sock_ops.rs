//! `sock_ops` (Linux 4.13): carries a connection's record from the client's socket, through the
//! handshake, to the accepted socket.
//!
//! Return value: always 1, which the kernel ignores for the operations handled here.
//!
//! | operation | socket | effect | counter if it fails |
//! |---|---|---|---|
//! | TCP_CONNECT_CB, before the SYN leaves | redirected client, or the agent's end of a delivery | its record is copied to the pod's `HANDSHAKES` | `handshake_record_lost` |
//! | TCP_CONNECT_CB | of a pod, without a record, to an address of the pod itself | a record of that goes to `HANDSHAKES` | `handshake_record_lost` |
//! | TCP_CONNECT_CB | of the node itself, to the mesh | the four-tuple goes to `NODE_CONNECTIONS` | `handshake_record_lost` |
//! | STATE_CB, from SYN_SENT to anything but ESTABLISHED, or to CLOSE | any of the above | the handshake is removed | |
//! | PASSIVE_ESTABLISHED_CB, before accept() | accepted | the record moves from `HANDSHAKES` to the socket | `accepted_record_lost` |
//! | any other | any | none | |
//!
//! If a handshake cannot be stored, `sk_lookup` refuses the SYN: without a record, nothing enters by the
//! agent's loopback addresses, and nothing from the pod's own addresses to the pod's own addresses. If the
//! node's handshake cannot be stored, its connection counts as plaintext without identity.
//!
//! Both ends of a redirected connection and of a delivery are on the pod's own loopback, where there is no
//! path to probe. They use CUBIC: the timers of a congestion control that paces, such as BBR, cost a tenth
//! of the throughput there. If the kernel has no CUBIC, they keep what they have.

use ambit_common::{
    Address, AddressPort, Counter, FourTuple, NetnsCookie, PodAddressKey, RecordKind, SocketRecord,
};
use ambit_ebpf::maps::{NODE_CONNECTIONS, POD_ADDRESSES};
use ambit_ebpf::report::{count, now_ns};
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
const SUCCEED: u32 = 1;

#[sock_ops]
pub fn ambit_sock_ops(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => connecting(&ctx),
        BPF_SOCK_OPS_STATE_CB => state_changed(&ctx),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => accepted(&ctx),
        _ => {}
    }
    SUCCEED
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
    // If the flag is refused, one entry stays behind until its four-tuple is used again.
    let _ = ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
}

/// Stores a handshake for `sk_lookup` and the accepted socket. Returns `false` if there is no room or the
/// pod is not enrolled.
#[inline(always)]
#[must_use]
fn begin(ctx: &SockOpsContext, connection: &FourTuple, record: &SocketRecord) -> bool {
    // SAFETY: the inner map is only used through helpers, and lives while the program runs.
    match unsafe { HANDSHAKES_OF.get(&netns(ctx)) } {
        Some(handshakes) => handshakes.insert(*connection, *record, 0).is_ok(),
        None => false,
    }
}

/// Whether a socket of an enrolled pod dials one of the pod's own addresses. Only the record of this tells
/// `sk_lookup` that a segment with the pod's own source comes from the pod: see `from_own_source` there.
#[inline(always)]
fn is_to_itself(ctx: &SockOpsContext, connection: &FourTuple) -> bool {
    POD_ADDRESSES
        .get_ptr(PodAddressKey {
            netns: netns(ctx),
            address: connection.server.address,
        })
        .is_some()
}

#[inline(always)]
fn local_client(connection: &FourTuple) -> SocketRecord {
    SocketRecord {
        since_ns: now_ns(),
        endpoint: connection.client,
        kind: RecordKind::LocalClient as u8,
        shard: 0,
        zero: 0,
    }
}

/// Removes a handshake that failed, or whose client has closed. Most are gone by then. What is left are
/// handshakes that their server never completed, and those of the node with pods of other nodes.
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

/// Whether a connect of the pod to itself has the same source as a delivery: `::1`, to an address of the
/// pod. Without a record, getpeername would hide the caller of either.
#[inline(always)]
fn looks_delivered(connection: &FourTuple) -> bool {
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

/// Returns the connection whose client is this socket.
#[inline(always)]
fn as_client(ctx: &SockOpsContext) -> FourTuple {
    FourTuple {
        client: local(ctx),
        server: remote(ctx),
    }
}

/// Returns the connection whose server is this socket.
#[inline(always)]
fn as_server(ctx: &SockOpsContext) -> FourTuple {
    FourTuple {
        client: remote(ctx),
        server: local(ctx),
    }
}

#[inline(always)]
fn local(ctx: &SockOpsContext) -> AddressPort {
    let (v4_be, v6_be) = (
        read_field!(ctx.ops, local_ip4),
        read_v6!(ctx.ops, local_ip6),
    );
    AddressPort::new(
        address(ctx, v4_be, v6_be),
        read_field!(ctx.ops, local_port) as u16,
    )
}

#[inline(always)]
fn remote(ctx: &SockOpsContext) -> AddressPort {
    let (v4_be, v6_be) = (
        read_field!(ctx.ops, remote_ip4),
        read_v6!(ctx.ops, remote_ip6),
    );
    let port_be = read_field!(ctx.ops, remote_port);
    AddressPort::new(address(ctx, v4_be, v6_be), u32::from_be(port_be) as u16)
}

#[inline(always)]
fn address(ctx: &SockOpsContext, v4_be: u32, v6_be: [u32; 4]) -> Address {
    if ctx.family() == AF_INET {
        Address::from_v4_be(v4_be)
    } else {
        Address::from_v6_be(v6_be)
    }
}
