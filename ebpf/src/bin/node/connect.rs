//! `cgroup/connect4` and `cgroup/connect6` (Linux 4.17): where a connect goes.
//!
//! Return values: 1 lets the connect go on, to the address that the program may have rewritten.
//! 0 fails it, with the errno that the program has set (`bpf_set_retval`, Linux 6.1), or else with EPERM. The
//! programs act on TCP only; anything else goes on.
//!
//! A pod's refused connect gets an errno that its programs know from a network without a mesh: clients try the
//! next address, or try again. ECONNREFUSED is for what may be over soon, as after the reset of a pod whose agent
//! is dead. EHOSTUNREACH is for a socket that cannot reach the destination at all.
//!
//! | socket | destination | return value | counter |
//! |---|---|---|---|
//! | with a ticket, so the agent's | any | see [`crate::agent_connect`] | see there |
//! | of the node itself, but not of the agent | a mesh destination | 1, and the handshake is remembered as the node's | none |
//! | of any other network namespace that is not enrolled | any | 1 | none |
//! | of an enrolled pod | the pod itself, or link-local | 1 | `outbound_local` |
//! | of an enrolled pod | outside the mesh | 1 | `outbound_outside_mesh` |
//! | of an enrolled pod | not opted in | 1 | `outbound_not_opted_in` |
//! | of a served pod | a mesh destination | 1, rewritten to the agent's outbound listener | `outbound_redirected` |
//! | of a served pod, bound to a device | a mesh destination | 0, EHOSTUNREACH | `outbound_refused` |
//! | of a served pod, less than a second after all endpoints failed | that mesh destination | 0, ECONNREFUSED | `outbound_endpoints_failed` |
//! | of a served pod, without memory for its record | a mesh destination | 0, ECONNREFUSED | `outbound_refused` |
//! | of a closed pod, or of one without an entry or a listener | a mesh destination | 0, ECONNREFUSED | `outbound_refused` |

use ambit_common::{
    Address, AddressPort, Counter, FailedKey, FourTuple, Hook, MESH_PREFIX_BITS, MeshClass,
    NetnsCookie, OUTBOUND_RANGE, PodAddressKey, PodEntry, Reason, RecordKind, SocketCookie,
    has_just_failed,
};
use ambit_ebpf::maps::POD_ADDRESSES;
use ambit_ebpf::pods::{self, PodLookup};
use ambit_ebpf::report::{DenialReport, count, now_ns, report};
use ambit_ebpf::{read_field, read_v6};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::bpf_get_current_ancestor_cgroup_id;
use aya_ebpf::helpers::generated::bpf_set_retval;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use aya_log_ebpf::debug;

use crate::maps::{FAILED, MESH, NODE, TICKETS};
use crate::{agent, agent_connect, socket};

const IPPROTO_TCP: u32 = 6;

const PASS: i32 = 1;
const REFUSE: i32 = 0;

/// What happens to a connect.
pub enum ConnectDecision {
    /// It goes on unchanged.
    Pass,
    /// It fails.
    Refuse(ConnectError),
    /// It goes to this address and port instead.
    Redirect(AddressPort),
}

/// The errno of a connect that fails.
#[repr(i32)]
#[derive(Clone, Copy)]
pub enum ConnectError {
    /// EPERM.
    NotPermitted = 1,
    /// ECONNREFUSED.
    ConnectionRefused = 111,
    /// EHOSTUNREACH.
    HostUnreachable = 113,
}

/// Sets the errno, and returns the value that fails the connect.
#[inline(always)]
fn fail(error: ConnectError) -> i32 {
    // SAFETY: the helper has no preconditions. If it fails, the errno is EPERM.
    unsafe { bpf_set_retval(-(error as i32)) };
    REFUSE
}

#[cgroup_sock_addr(connect4)]
pub fn ambit_connect4(ctx: SockAddrContext) -> i32 {
    let ip_be = read_field!(ctx.sock_addr, user_ip4);
    match decide(
        &ctx,
        &AddressPort::new(Address::from_v4_be(ip_be), dialled_port(&ctx)),
    ) {
        ConnectDecision::Pass => PASS,
        ConnectDecision::Refuse(error) => fail(error),
        ConnectDecision::Redirect(to) => {
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
        &AddressPort::new(Address::from_v6_be(ip_be), dialled_port(&ctx)),
    ) {
        ConnectDecision::Pass => PASS,
        ConnectDecision::Refuse(error) => fail(error),
        // After this hook, the kernel treats a mapped address as IPv4.
        ConnectDecision::Redirect(to) => {
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
fn decide(ctx: &SockAddrContext, dialled: &AddressPort) -> ConnectDecision {
    if read_field!(ctx.sock_addr, protocol) != IPPROTO_TCP {
        return ConnectDecision::Pass;
    }
    let cookie = socket::cookie(ctx);
    let netns = socket::netns(ctx);
    if let Some(ticket) = TICKETS.get_ptr_mut(cookie) {
        // SAFETY: no one else uses the ticket: the agent waits until this connect returns.
        return agent_connect::admit(ctx, netns, cookie, dialled, unsafe { &mut *ticket });
    }
    socket::forget(ctx);
    match pods::find(netns) {
        PodLookup::Enrolled(pod) => from_pod(ctx, netns, cookie, Some(pod), dialled),
        PodLookup::EntryMissing => from_pod(ctx, netns, cookie, None, dialled),
        PodLookup::NotEnrolled => from_elsewhere(ctx, netns, dialled),
    }
}

/// Decides a connect of an enrolled pod. `pod` is `None` if its entry is missing; the pod counts as closed
/// then.
#[inline(always)]
fn from_pod(
    ctx: &SockAddrContext,
    netns: NetnsCookie,
    cookie: SocketCookie,
    pod: Option<&PodEntry>,
    dialled: &AddressPort,
) -> ConnectDecision {
    if is_own(netns, &dialled.address) {
        count(Counter::OutboundLocal);
        return ConnectDecision::Pass;
    }
    match class(&dialled.address) {
        None | Some(MeshClass::Outside) => {
            count(Counter::OutboundOutside);
            ConnectDecision::Pass
        }
        Some(MeshClass::NotOptedIn) => {
            count(Counter::OutboundNotOptedIn);
            ConnectDecision::Pass
        }
        Some(MeshClass::Proxy) => match pod {
            Some(pod) => redirect(ctx, netns, cookie, pod, dialled),
            None => refuse(netns, dialled, Reason::TablesIncomplete),
        },
    }
}

/// Whether an address is loopback, unspecified (which means loopback), link-local, or the pod's own.
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

/// Returns the class of a destination, or `None` if it is outside the mesh. An unknown value counts as
/// [`MeshClass::Proxy`], so that the connection is judged.
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
    dialled: &AddressPort,
) -> ConnectDecision {
    let shard = if pod.shards == 0 {
        0
    } else {
        cookie.0 as u32 % pod.shards
    };
    let port = pod.outbound_port(shard);
    if !pod.is_served() || port == 0 {
        return refuse(netns, dialled, Reason::PodClosed);
    }
    if socket::bound_device(ctx) != 0 {
        return refuse(netns, dialled, Reason::DeviceBound);
    }
    if has_failed(netns, dialled) {
        // Not a denial: the proxy has said what failed.
        count(Counter::OutboundFailed);
        return ConnectDecision::Refuse(ConnectError::ConnectionRefused);
    }
    if !socket::remember(ctx, RecordKind::OutboundClient, *dialled, shard) {
        return refuse(netns, dialled, Reason::NoMemory);
    }
    count(Counter::OutboundRedirected);
    debug!(
        ctx,
        "redirected connect, port {}, to shard {}", dialled.port, shard
    );
    ConnectDecision::Redirect(AddressPort::new(listener_address(dialled, cookie), port))
}

/// Whether the agent has just tried all endpoints of a destination for this pod, and none could be reached.
///
/// Without this, a client with several addresses to try would never leave the first one: the redirected connect
/// succeeds each time, and is reset.
#[inline(always)]
fn has_failed(netns: NetnsCookie, dialled: &AddressPort) -> bool {
    let Some(failed_at) = FAILED.get_ptr(FailedKey::new(netns, *dialled)) else {
        return false;
    };
    // SAFETY: a map value is valid while the program runs. If the entry has just been deleted, its memory may hold
    // another entry's time: one connect is then refused, or not, for another failure.
    has_just_failed(unsafe { failed_at.read_volatile() }, now_ns())
}

/// Returns the address to which a connect is redirected. IPv4 addresses are spread over the outbound
/// range, so that the pod does not run out of source ports. IPv6 has only one loopback address.
/// `sk_lookup` steers the connection by its record, not by this address.
#[inline(always)]
fn listener_address(dialled: &AddressPort, cookie: SocketCookie) -> Address {
    if dialled.address.is_v4() {
        let [low, high, ..] = cookie.0.to_ne_bytes();
        let [a, b] = OUTBOUND_RANGE;
        Address::v4([a, b, high, low])
    } else {
        Address::V6_LOOPBACK
    }
}

#[inline(always)]
fn refuse(netns: NetnsCookie, dialled: &AddressPort, reason: Reason) -> ConnectDecision {
    count(Counter::OutboundRefused);
    let connection = FourTuple {
        client: AddressPort::UNSPECIFIED,
        server: *dialled,
    };
    report(&DenialReport::without_policy(
        Hook::Connect,
        reason,
        netns,
        connection,
    ));
    ConnectDecision::Refuse(match reason {
        Reason::DeviceBound => ConnectError::HostUnreachable,
        _ => ConnectError::ConnectionRefused,
    })
}

/// Decides a connect of a socket that does not belong to an enrolled pod: it goes on.
///
/// If the node itself dials the mesh, the socket is remembered, so that the pod's `sk_lookup` can recognise
/// a probe. A socket is the node's if it is in the node's network namespace, its process is not in a
/// hostNetwork pod's cgroup, and its process is not the agent. The agent sends no probes. It fetches what
/// policies name, as any client would.
#[inline(always)]
fn from_elsewhere(
    ctx: &SockAddrContext,
    netns: NetnsCookie,
    dialled: &AddressPort,
) -> ConnectDecision {
    if let Some(node) = NODE.get(0)
        && node.host_netns == netns
        && !in_pods_cgroup(node.pods_cgroup, node.pods_cgroup_level)
        && !agent::is_calling(ctx, node)
        && class(&dialled.address) == Some(MeshClass::Proxy)
    {
        // Without the record, the connection counts as plaintext without identity, which is stricter.
        let _ = socket::remember(ctx, RecordKind::Node, *dialled, 0);
    }
    ConnectDecision::Pass
}

#[inline(always)]
fn in_pods_cgroup(id: u64, level: u32) -> bool {
    // SAFETY: the helper has no preconditions.
    id != 0 && unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) } == id
}
