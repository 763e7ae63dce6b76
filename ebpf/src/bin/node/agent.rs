//! What tells the agent's sockets and the agent's process from those of others.
//!
//! The kernel keeps a mark on each of the agent's sockets that reach outside their pod, for as long as the
//! socket lives. The agent marks its listeners before they can be reached. A socket that a listener accepts
//! inherits the mark before accept() returns it. The connect hook marks what the agent dials. So a socket is
//! known as the agent's even while no process holds it: before accept() and after close(). Ports do not tell
//! it, because a peer chooses its own port.
//!
//! The process id of the agent only takes rights away. Policies make the agent dial addresses that their
//! authors choose, and that must not count as the node's own traffic. A process id can be reused, so it
//! never grants anything.

use ambit_common::NodeSettings;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_SK_STORAGE;
use aya_ebpf::bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE};
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::SockAddrContext;

use crate::maps::NODE;
use crate::socket;

/// The agent's sockets that reach outside their pod. Only the presence of a value matters.
#[btf_map]
pub static AGENT_SOCKETS: InheritedStorage<u32> = InheritedStorage::new();

/// A socket storage whose values a listener passes on to the sockets that it accepts
/// (`BPF_F_CLONE`, which aya's own type does not have). The fields describe the map to the loader.
#[repr(C)]
pub struct InheritedStorage<T> {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the pointers are never followed; the loader replaces the whole by the map.
unsafe impl<T> Sync for InheritedStorage<T> {}

impl<T> InheritedStorage<T> {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }
}

/// Marks the socket that connects as the agent's. Returns `false` if there is no memory.
#[inline(always)]
#[must_use]
pub fn mark_socket(ctx: &SockAddrContext) -> bool {
    let mut value = 1_u32;
    // SAFETY: the socket is the context's own, and the helper copies the value.
    let stored = unsafe {
        bpf_sk_storage_get(
            (&raw const AGENT_SOCKETS).cast_mut().cast(),
            socket::socket(ctx).cast(),
            (&raw mut value).cast(),
            BPF_SK_STORAGE_GET_F_CREATE.into(),
        )
    };
    !stored.is_null()
}

/// Notes that the calling process is the agent, which it has proved by its canary ticket.
#[inline(always)]
pub fn note_process(ctx: &SockAddrContext) {
    if let Some(node) = NODE.get_ptr_mut(0) {
        // SAFETY: the entry of an array lives as long as its map, and nothing else writes the field
        // while the agent proves itself.
        unsafe { (*node).agent = ctx.tgid() };
    }
}

/// Whether the calling process is the agent.
#[inline(always)]
pub fn is_calling(ctx: &SockAddrContext, node: &NodeSettings) -> bool {
    node.agent != 0 && node.agent == ctx.tgid()
}
