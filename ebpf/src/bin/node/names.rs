//! `cgroup/getpeername4/6` and `cgroup/getsockname4/6` (Linux 5.8): applications see the addresses
//! that they would see without a mesh.
//!
//! Return value: always 1. `getpeername` runs for `accept()` too.
//!
//! | socket | shows |
//! |---|---|
//! | redirected client, its peer | what it dialled |
//! | redirected client, itself | the pod's address where the kernel chose a loopback one |
//! | application's end of a delivery, its peer | the caller, and its port where that is known |
//! | the same, without its record | the unspecified address: never a delivery address |

use ambit_common::{Address, DELIVERY_RANGE, Endpoint, RecordKind};
use ambit_ebpf::pods::{self, Enrolment};
use ambit_ebpf::{read_field, read_v6};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::socket;

const DONE: i32 = 1;

#[cgroup_sock_addr(getpeername4)]
pub fn ambit_getpeername4(ctx: SockAddrContext) -> i32 {
    let shown = Address::from_v4_be(read_field!(ctx.sock_addr, user_ip4));
    if let Some(peer) = peer(&ctx, &shown) {
        socket::set_shown_v4(&ctx, &peer);
    }
    DONE
}

#[cgroup_sock_addr(getpeername6)]
pub fn ambit_getpeername6(ctx: SockAddrContext) -> i32 {
    let shown = Address::from_v6_be(read_v6!(ctx.sock_addr, user_ip6));
    if let Some(peer) = peer(&ctx, &shown) {
        socket::set_shown_v6(&ctx, &peer);
    }
    DONE
}

#[cgroup_sock_addr(getsockname4)]
pub fn ambit_getsockname4(ctx: SockAddrContext) -> i32 {
    let shown = Address::from_v4_be(read_field!(ctx.sock_addr, user_ip4));
    if let Some(own) = own(&ctx, &shown) {
        socket::set_shown_v4(&ctx, &Endpoint::new(own, 0));
    }
    DONE
}

#[cgroup_sock_addr(getsockname6)]
pub fn ambit_getsockname6(ctx: SockAddrContext) -> i32 {
    let shown = Address::from_v6_be(read_v6!(ctx.sock_addr, user_ip6));
    if let Some(own) = own(&ctx, &shown) {
        socket::set_shown_v6(&ctx, &Endpoint::new(own, 0));
    }
    DONE
}

/// The peer to show instead of `shown`; port 0 keeps the port.
#[inline(always)]
fn peer(ctx: &SockAddrContext, shown: &Address) -> Option<Endpoint> {
    let Some(record) = socket::record(ctx) else {
        return is_delivery(ctx, shown).then_some(Endpoint::UNSPECIFIED);
    };
    match record.kind()? {
        RecordKind::OutboundClient | RecordKind::DeliveryAccepted => Some(record.endpoint),
        RecordKind::OutboundAccepted
        | RecordKind::DeliveryClient
        | RecordKind::Node
        | RecordKind::LocalClient => None,
    }
}

/// Whether `shown` is an address from which only the agent delivers.
#[inline(always)]
fn is_delivery(ctx: &SockAddrContext, shown: &Address) -> bool {
    let from_range = shown.in_v4_range(DELIVERY_RANGE);
    let from_v6_loopback =
        !shown.is_v4() && shown.is_loopback() && !socket::local_address(ctx).is_loopback();
    (from_range || from_v6_loopback) && pods::slot(socket::netns(ctx)).is_some()
}

/// The pod's address to show instead of a loopback one that the redirect made the kernel choose.
#[inline(always)]
fn own(ctx: &SockAddrContext, shown: &Address) -> Option<Address> {
    if !shown.is_loopback() || socket::record(ctx)?.kind()? != RecordKind::OutboundClient {
        return None;
    }
    let Enrolment::Pod(pod) = pods::find(socket::netns(ctx)) else {
        return None;
    };
    let own = if shown.is_v4() {
        pod.primary_v4
    } else {
        pod.primary_v6
    };
    (!own.is_unspecified()).then_some(own)
}
