//! `cgroup/getpeername4/6` and `cgroup/getsockname4/6` (Linux 5.8): applications see the addresses
//! that they would see without a mesh.
//!
//! Return value: always 1, so the call succeeds with the address that the program may have rewritten.
//! `getpeername` also runs for accept(). The programs refuse nothing and count nothing.
//!
//! | socket | call | shows |
//! |---|---|---|
//! | redirected client | getpeername | the address that it dialled |
//! | redirected client, if the kernel chose a loopback address for it | getsockname | the pod's primary address |
//! | application's end of a delivery | getpeername | the caller's address, and its port if it is known |
//! | the same, if its record could not be stored | getpeername | the unspecified address, never a delivery address |
//! | any other | both | the real address |

use ambit_common::{Address, AddressPort, DELIVERY_RANGE, RecordKind};
use ambit_ebpf::pods::{self, PodLookup};
use ambit_ebpf::{read_field, read_v6};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::socket;

/// The only return value that the verifier allows here.
const SUCCEED: i32 = 1;

#[cgroup_sock_addr(getpeername4)]
pub fn ambit_getpeername4(ctx: SockAddrContext) -> i32 {
    let shown = Address::from_v4_be(read_field!(ctx.sock_addr, user_ip4));
    if let Some(peer) = peer(&ctx, &shown) {
        socket::set_shown_v4(&ctx, &peer);
    }
    SUCCEED
}

#[cgroup_sock_addr(getpeername6)]
pub fn ambit_getpeername6(ctx: SockAddrContext) -> i32 {
    let shown = Address::from_v6_be(read_v6!(ctx.sock_addr, user_ip6));
    if let Some(peer) = peer(&ctx, &shown) {
        socket::set_shown_v6(&ctx, &peer);
    }
    SUCCEED
}

#[cgroup_sock_addr(getsockname4)]
pub fn ambit_getsockname4(ctx: SockAddrContext) -> i32 {
    let shown = Address::from_v4_be(read_field!(ctx.sock_addr, user_ip4));
    if let Some(own) = own(&ctx, &shown) {
        socket::set_shown_v4(&ctx, &AddressPort::new(own, 0));
    }
    SUCCEED
}

#[cgroup_sock_addr(getsockname6)]
pub fn ambit_getsockname6(ctx: SockAddrContext) -> i32 {
    let shown = Address::from_v6_be(read_v6!(ctx.sock_addr, user_ip6));
    if let Some(own) = own(&ctx, &shown) {
        socket::set_shown_v6(&ctx, &AddressPort::new(own, 0));
    }
    SUCCEED
}

/// Returns the peer to show instead of `shown`. Port 0 keeps the real port.
#[inline(always)]
fn peer(ctx: &SockAddrContext, shown: &Address) -> Option<AddressPort> {
    let Some(record) = socket::record(ctx) else {
        return is_delivery(ctx, shown).then_some(AddressPort::UNSPECIFIED);
    };
    match record.kind()? {
        RecordKind::OutboundClient | RecordKind::DeliveryAccepted => Some(record.endpoint),
        RecordKind::OutboundAccepted
        | RecordKind::DeliveryClient
        | RecordKind::Node
        | RecordKind::LocalClient => None,
    }
}

/// Whether `shown` is an address that only the agent's deliveries come from.
#[inline(always)]
fn is_delivery(ctx: &SockAddrContext, shown: &Address) -> bool {
    let from_range = shown.in_v4_range(DELIVERY_RANGE);
    let from_v6_loopback =
        !shown.is_v4() && shown.is_loopback() && !socket::local_address(ctx).is_loopback();
    (from_range || from_v6_loopback) && pods::slot(socket::netns(ctx)).is_some()
}

/// Returns the pod's address to show instead of a loopback address that the kernel chose because of the
/// redirect.
#[inline(always)]
fn own(ctx: &SockAddrContext, shown: &Address) -> Option<Address> {
    if !shown.is_loopback() || socket::record(ctx)?.kind()? != RecordKind::OutboundClient {
        return None;
    }
    let PodLookup::Enrolled(pod) = pods::find(socket::netns(ctx)) else {
        return None;
    };
    let own = if shown.is_v4() {
        pod.primary_v4
    } else {
        pod.primary_v6
    };
    (!own.is_unspecified()).then_some(own)
}
