//! `cgroup/connect4` and `cgroup/connect6` (Linux 4.17): where a connect goes.
//!
//! Return values: 1 lets the connect go on, to the address that the program may have rewritten;
//! 0 fails it with EPERM. The programs act on TCP only.
//!
//! | socket | destination | outcome |
//! |---|---|---|
//! | of the agent, with a ticket | the ticket's | [`crate::own`] |
//! | of the node itself, but not of the agent | a pod of the mesh | passes, remembered as the node's |
//! | not of an enrolled pod | any | passes |
//! | of an enrolled pod | itself, link-local, outside, not opted in | passes, counted |
//! | of an enrolled pod | the mesh | rewritten to the agent's outbound listener, or refused |
//! | of one without an entry of its own | the mesh | refused |

use ambit_common::{
    Address, Connection, Counter, Endpoint, Hook, MESH_PREFIX_BITS, MeshClass, NetnsCookie,
    OUTBOUND_RANGE, PodAddressKey, PodEntry, Reason, RecordKind, SocketCookie,
};
use ambit_ebpf::count::count;
use ambit_ebpf::maps::POD_ADDRESSES;
use ambit_ebpf::pods::{self, Enrolment};
use ambit_ebpf::report::{Denial, report};
use ambit_ebpf::{read_field, read_v6};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::bpf_get_current_ancestor_cgroup_id;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use aya_log_ebpf::debug;

use crate::maps::{MESH, NODE, TICKETS};
use crate::outcome::Outcome;
use crate::{agent_process, own, socket};

const IPPROTO_TCP: u32 = 6;

const PASS: i32 = 1;
const REFUSE: i32 = 0;

#[cgroup_sock_addr(connect4)]
pub fn ambit_connect4(ctx: SockAddrContext) -> i32 {
    let ip_be = read_field!(ctx.sock_addr, user_ip4);
    match decide(
        &ctx,
        &Endpoint::new(Address::from_v4_be(ip_be), dialled_port(&ctx)),
    ) {
        Outcome::Pass => PASS,
        Outcome::Refuse => REFUSE,
        Outcome::Redirect(to) => {
            socket::set_shown_v4(&ctx, &to);
            PASS
        }
    }
}

#[cgroup_sock_addr(connect6)]
pub fn ambit_connect6(ctx: SockAddrContext) -> i32 {
    let ip_be = read_v6!(ctx.sock_addr, user_ip6);
    match decide(
        &ctx,
        &Endpoint::new(Address::from_v6_be(ip_be), dialled_port(&ctx)),
    ) {
        Outcome::Pass => PASS,
        Outcome::Refuse => REFUSE,
        // The kernel takes a mapped address for IPv4 after this hook.
        Outcome::Redirect(to) => {
            socket::set_shown_v6(&ctx, &to);
            PASS
        }
    }
}

#[inline(always)]
fn dialled_port(ctx: &SockAddrContext) -> u16 {
    let port_be = read_field!(ctx.sock_addr, user_port) as u16;
    u16::from_be(port_be)
}

#[inline(always)]
fn decide(ctx: &SockAddrContext, dialled: &Endpoint) -> Outcome {
    if read_field!(ctx.sock_addr, protocol) != IPPROTO_TCP {
        return Outcome::Pass;
    }
    let cookie = socket::cookie(ctx);
    let netns = socket::netns(ctx);
    if let Some(ticket) = TICKETS.get_ptr_mut(cookie) {
        // SAFETY: the ticket is this socket's alone: the agent waits for its connect to return.
        return own::admit(ctx, netns, dialled, unsafe { &mut *ticket });
    }
    socket::forget(ctx);
    match pods::find(netns) {
        Enrolment::Pod(pod) => from_pod(ctx, netns, cookie, Some(pod), dialled),
        Enrolment::Broken => from_pod(ctx, netns, cookie, None, dialled),
        Enrolment::None => from_elsewhere(ctx, netns, dialled),
    }
}

/// `pod` is `None` where its entry is not there: a closed pod.
#[inline(always)]
fn from_pod(
    ctx: &SockAddrContext,
    netns: NetnsCookie,
    cookie: SocketCookie,
    pod: Option<&PodEntry>,
    dialled: &Endpoint,
) -> Outcome {
    if is_own(netns, &dialled.address) {
        count(Counter::OutboundLocal);
        return Outcome::Pass;
    }
    match class(&dialled.address) {
        None | Some(MeshClass::Outside) => {
            count(Counter::OutboundOutside);
            Outcome::Pass
        }
        Some(MeshClass::NotOptedIn) => {
            count(Counter::OutboundNotOptedIn);
            Outcome::Pass
        }
        Some(MeshClass::Proxy) => match pod {
            Some(pod) => redirect(ctx, netns, cookie, pod, dialled),
            None => refuse(netns, dialled, Reason::TablesIncomplete),
        },
    }
}

/// Loopback, the unspecified address (which means loopback), link-local and the pod's own.
#[inline(always)]
fn is_own(netns: NetnsCookie, address: &Address) -> bool {
    address.is_loopback()
        || address.is_unspecified()
        || address.is_link_local_v6()
        || POD_ADDRESSES
            .get_ptr(PodAddressKey {
                netns,
                address: *address,
            })
            .is_some()
}

/// `None`: not of the mesh. A value that is no class counts as the mesh's, which is the side that
/// is judged.
#[inline(always)]
fn class(address: &Address) -> Option<MeshClass> {
    let value = MESH.get(&Key::new(MESH_PREFIX_BITS, *address))?;
    Some(MeshClass::from_u8(*value).unwrap_or(MeshClass::Proxy))
}

#[inline(always)]
fn redirect(
    ctx: &SockAddrContext,
    netns: NetnsCookie,
    cookie: SocketCookie,
    pod: &PodEntry,
    dialled: &Endpoint,
) -> Outcome {
    let shard = if pod.shards == 0 {
        0
    } else {
        cookie.0 as u32 % pod.shards
    };
    let port = pod.outbound_port(shard);
    if !pod.is_open() || port == 0 {
        return refuse(netns, dialled, Reason::PodClosed);
    }
    if socket::bound_device(ctx) != 0 {
        return refuse(netns, dialled, Reason::DeviceBound);
    }
    if !socket::remember(ctx, RecordKind::OutboundClient, *dialled, shard) {
        return refuse(netns, dialled, Reason::NoMemory);
    }
    count(Counter::OutboundRedirected);
    debug!(
        ctx,
        "redirected connect, port {}, to shard {}", dialled.port, shard
    );
    Outcome::Redirect(Endpoint::new(listener_address(dialled, cookie), port))
}

/// An address of the outbound range, spread so that the pod's ports last: `sk_lookup` steers by
/// the connection's record and not by its address. IPv6 has only one loopback address.
#[inline(always)]
fn listener_address(dialled: &Endpoint, cookie: SocketCookie) -> Address {
    if dialled.address.is_v4() {
        let [low, high, ..] = cookie.0.to_ne_bytes();
        let [a, b] = OUTBOUND_RANGE;
        Address::v4([a, b, high, low])
    } else {
        Address::V6_LOOPBACK
    }
}

#[inline(always)]
fn refuse(netns: NetnsCookie, dialled: &Endpoint, reason: Reason) -> Outcome {
    count(Counter::OutboundRefused);
    let connection = Connection {
        client: Endpoint::UNSPECIFIED,
        server: *dialled,
    };
    report(&Denial::without_policy(
        Hook::Connect,
        reason,
        netns,
        connection,
    ));
    Outcome::Refuse
}

/// A socket of no enrolled pod. One of the node itself (its network namespace, not in a hostNetwork
/// pod's cgroup, and not the agent's) that dials the mesh is remembered, so that the pod's `sk_lookup`
/// knows a probe. The agent sends no probes: it fetches what policies name, as any client would.
#[inline(always)]
fn from_elsewhere(ctx: &SockAddrContext, netns: NetnsCookie, dialled: &Endpoint) -> Outcome {
    if let Some(node) = NODE.get(0)
        && node.host_netns == netns
        && !in_pods_cgroup(node.pods_cgroup, node.pods_cgroup_level)
        && !agent_process::is_calling(ctx, node)
        && class(&dialled.address) == Some(MeshClass::Proxy)
    {
        // Without the record it is plaintext without identity, which is the stricter case.
        let _ = socket::remember(ctx, RecordKind::Node, *dialled, 0);
    }
    Outcome::Pass
}

#[inline(always)]
fn in_pods_cgroup(id: u64, level: u32) -> bool {
    // SAFETY: the helper has no preconditions.
    id != 0 && unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) } == id
}
