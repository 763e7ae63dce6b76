//! Whether a socket listens where the agent is about to deliver.
//!
//! `bpf_skc_lookup_tcp` (Linux 5.2) does what the kernel does for a SYN: it runs the network namespace's
//! `sk_lookup` programs, then tries the specific address, then the wildcard. It knows sockets that take both IP
//! versions, and groups of SO_REUSEPORT. The pod's own `sk_lookup` program lets this look-up pass, which it knows
//! by its source, [`LOOKUP_SOURCE_PORT`], and by the lack of a device.
//!
//! The lack of a device is also what the look-up cannot do: it misses listeners that are bound to a device. It
//! knows no port of the client either, and no rules of netfilter. So an answer of "none" is a hint, which the
//! agent checks (`agent/datapath/src/sockets/unheard/mod.rs`).

use ambit_common::{AddressPort, DELIVERY_RANGE, LOOKUP_SOURCE_PORT};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as Tuple4,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as Tuple6,
};
use aya_ebpf::helpers::generated::{bpf_sk_release, bpf_skc_lookup_tcp};
use aya_ebpf::programs::SockAddrContext;

/// `BPF_F_CURRENT_NETNS`: the network namespace of the context's socket.
const NETNS_OF_SOCKET: u64 = -1_i64 as u64;

/// Whether a socket listens at `destination` in the socket's network namespace.
#[inline(always)]
pub fn exists(ctx: &SockAddrContext, destination: &AddressPort) -> bool {
    let (sport, dport) = (LOOKUP_SOURCE_PORT.to_be(), destination.port.to_be());
    if destination.address.is_v4() {
        let [a, b] = DELIVERY_RANGE;
        let mut tuple = Tuple4 {
            saddr: u32::from_ne_bytes([a, b, 0, 1]),
            daddr: destination.address.v4_be(),
            sport,
            dport,
        };
        look_up(ctx, (&raw mut tuple).cast(), size_of::<Tuple4>())
    } else {
        let mut tuple = Tuple6 {
            saddr: [0, 0, 0, 1_u32.to_be()],
            daddr: destination.address.v6_be(),
            sport,
            dport,
        };
        look_up(ctx, (&raw mut tuple).cast(), size_of::<Tuple6>())
    }
}

#[inline(always)]
fn look_up(ctx: &SockAddrContext, tuple: *mut bpf_sock_tuple, size: usize) -> bool {
    // SAFETY: the tuple is as long as is said, and the helper takes this program type's context.
    let found = unsafe { bpf_skc_lookup_tcp(ctx.as_ptr(), tuple, size as u32, NETNS_OF_SOCKET, 0) };
    if found.is_null() {
        return false;
    }
    // SAFETY: the look-up has taken the reference that this returns, and the socket is not used afterwards.
    unsafe { bpf_sk_release(found.cast()) };
    true
}
