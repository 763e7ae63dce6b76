//! Which process is the agent. Only to keep it from what the node's own processes may do: policies have
//! it dial where their authors like. An id can come again, so that it never grants anything.

use ambit_common::NodeSettings;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::programs::SockAddrContext;

use crate::maps::NODE;

/// Remembers the calling process, which has proved that it is the agent.
#[inline(always)]
pub fn remember(ctx: &SockAddrContext) {
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
