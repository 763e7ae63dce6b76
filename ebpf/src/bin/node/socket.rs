//! The socket behind a connect, getpeername or getsockname call, and its record.

use ambit_common::{Address, AddressPort, NetnsCookie, RecordKind, SocketCookie, SocketRecord};
use ambit_ebpf::report::now_ns;
use ambit_ebpf::{read_field, read_v6, write_field};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie};
use aya_ebpf::programs::SockAddrContext;

use crate::maps::SOCKETS;

/// Returns the network namespace that the socket lives in.
#[inline(always)]
pub fn netns(ctx: &SockAddrContext) -> NetnsCookie {
    // SAFETY: the helper takes this program type's context.
    NetnsCookie(unsafe { bpf_get_netns_cookie(ctx.as_ptr()) })
}

/// Returns the socket's cookie.
#[inline(always)]
pub fn cookie(ctx: &SockAddrContext) -> SocketCookie {
    // SAFETY: the helper takes this program type's context.
    SocketCookie(unsafe { bpf_get_socket_cookie(ctx.as_ptr()) })
}

/// Returns the socket itself, which is never null in these hooks.
#[inline(always)]
pub fn socket(ctx: &SockAddrContext) -> *mut bpf_sock {
    read_field!(ctx.sock_addr, __bindgen_anon_1.sk)
}

/// Returns the index of the device that the socket is bound to, or 0.
#[inline(always)]
pub fn bound_device(ctx: &SockAddrContext) -> u32 {
    read_field!(socket(ctx), bound_dev_if)
}

/// Returns the socket's local address.
#[inline(always)]
pub fn local_address(ctx: &SockAddrContext) -> Address {
    Address::from_v6_be(read_v6!(socket(ctx), src_ip6))
}

/// Returns the socket's record, if it has one.
#[inline(always)]
pub fn record(ctx: &SockAddrContext) -> Option<&SocketRecord> {
    // SAFETY: the socket's storage lives as long as the socket, which outlives the program.
    unsafe { SOCKETS.get_ptr_mut(ctx).as_ref() }
}

/// Gives the socket a record, and replaces the one that it has. Returns `false` if there is no memory.
#[inline(always)]
#[must_use]
pub fn remember(
    ctx: &SockAddrContext,
    kind: RecordKind,
    endpoint: AddressPort,
    shard: u32,
) -> bool {
    let mut fresh = SocketRecord {
        since_ns: now_ns(),
        endpoint,
        kind: kind as u8,
        shard: shard as u8,
        zero: 0,
    };
    // SAFETY: as in `record`.
    let stored = unsafe { SOCKETS.get_or_insert_ptr_mut(ctx, Some(&mut fresh)) };
    if stored.is_null() {
        return false;
    }
    // SAFETY: not null. The kernel holds the socket's lock in this hook.
    unsafe { *stored = fresh };
    true
}

/// Removes the record that an earlier connect of the same socket left.
#[inline(always)]
pub fn forget(ctx: &SockAddrContext) {
    if record(ctx).is_some() {
        // SAFETY: the pointer is the context's own socket. An error means that it has no record.
        let _ = unsafe { SOCKETS.delete(socket(ctx)) };
    }
}

/// Writes an IPv4 address into the context, and the port unless it is 0.
#[inline(always)]
pub fn set_shown_v4(ctx: &SockAddrContext, to: &AddressPort) {
    write_field!(ctx.sock_addr, user_ip4 = to.address.v4_be());
    set_shown_port(ctx, to.port);
}

/// Writes an IPv6 or mapped address into the context, and the port unless it is 0.
#[inline(always)]
pub fn set_shown_v6(ctx: &SockAddrContext, to: &AddressPort) {
    let [a, b, c, d] = to.address.v6_be();
    write_field!(ctx.sock_addr, user_ip6[0] = a);
    write_field!(ctx.sock_addr, user_ip6[1] = b);
    write_field!(ctx.sock_addr, user_ip6[2] = c);
    write_field!(ctx.sock_addr, user_ip6[3] = d);
    set_shown_port(ctx, to.port);
}

#[inline(always)]
fn set_shown_port(ctx: &SockAddrContext, port: u16) {
    if port != 0 {
        write_field!(ctx.sock_addr, user_port = u32::from(port.to_be()));
    }
}
