//! What the connect hook sets on the sockets that the agent dials. It saves the agent seven system calls for each
//! delivery.
//!
//! | helper | of Linux | sets |
//! |---|---|---|
//! | `bpf_setsockopt` | 6.1, for TCP_NODELAY; the others are older | keep-alive; no delay of what is written |
//! | `bpf_bind` | 4.17 | a delivery's source. The kernel chooses the port later, by the whole four-tuple |

use ambit_common::{
    Address, DELIVERY_RANGE, KEEP_ALIVE_IDLE_S, KEEP_ALIVE_INTERVAL_S, KEEP_ALIVE_PROBES,
    SocketCookie,
};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{SO_KEEPALIVE, SOL_SOCKET};
use aya_ebpf::helpers::generated::{bpf_bind, bpf_setsockopt};
use aya_ebpf::programs::SockAddrContext;

const SOL_TCP: i32 = 6;
const TCP_NODELAY: i32 = 1;
const TCP_KEEPIDLE: i32 = 4;
const TCP_KEEPINTVL: i32 = 5;
const TCP_KEEPCNT: i32 = 6;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// `struct sockaddr_in`.
#[repr(C)]
struct SourceV4 {
    family: u16,
    port: u16,
    address: u32,
    zero: [u8; 8],
}

/// `struct sockaddr_in6`.
#[repr(C)]
struct SourceV6 {
    family: u16,
    port: u16,
    flow: u32,
    address: [u32; 4],
    scope: u32,
}

/// Sets the socket's options. Returns `false` if the kernel does not take one.
#[inline(always)]
#[must_use]
pub fn set_options(ctx: &SockAddrContext) -> bool {
    set(ctx, SOL_TCP, TCP_NODELAY, 1)
        && set(ctx, SOL_SOCKET as i32, SO_KEEPALIVE as i32, 1)
        && set(ctx, SOL_TCP, TCP_KEEPIDLE, KEEP_ALIVE_IDLE_S)
        && set(ctx, SOL_TCP, TCP_KEEPINTVL, KEEP_ALIVE_INTERVAL_S)
        && set(ctx, SOL_TCP, TCP_KEEPCNT, KEEP_ALIVE_PROBES)
}

#[inline(always)]
fn set(ctx: &SockAddrContext, level: i32, option: i32, mut value: u32) -> bool {
    // SAFETY: the helper takes this program type's context, and reads the four bytes of the value.
    let result = unsafe {
        bpf_setsockopt(
            ctx.as_ptr(),
            level,
            option,
            (&raw mut value).cast(),
            size_of::<u32>() as i32,
        )
    };
    result == 0
}

/// Binds the socket of a delivery to its source. IPv4 has a range of them, so that a busy pod does not run out of
/// ports. IPv6 has one. Returns `false` if the kernel does not let it, for example because the pod's loopback
/// interface is down.
#[inline(always)]
#[must_use]
pub fn set_delivery_source(
    ctx: &SockAddrContext,
    destination: &Address,
    cookie: SocketCookie,
) -> bool {
    if destination.is_v4() {
        let [low, high, ..] = cookie.0.to_ne_bytes();
        let [a, b] = DELIVERY_RANGE;
        let mut source = SourceV4 {
            family: AF_INET,
            port: 0,
            address: u32::from_ne_bytes([a, b, high, low]),
            zero: [0; 8],
        };
        bind(ctx, &raw mut source)
    } else {
        let mut source = SourceV6 {
            family: AF_INET6,
            port: 0,
            flow: 0,
            address: Address::V6_LOOPBACK.v6_be(),
            scope: 0,
        };
        bind(ctx, &raw mut source)
    }
}

#[inline(always)]
fn bind<T>(ctx: &SockAddrContext, source: *mut T) -> bool {
    // SAFETY: the helper takes this program type's context, and reads as many bytes as the source has.
    unsafe { bpf_bind(ctx.sock_addr, source.cast(), size_of::<T>() as i32) == 0 }
}
