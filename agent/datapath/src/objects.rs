//! The kernel objects, embedded, so that the agent needs no toolchain.

/// The node's programs: connect, names, sock_ops.
pub(super) static NODE: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("AMBIT_EBPF_DIR"), "/node.o"));

/// A pod's program: sk_lookup.
pub(super) static POD: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("AMBIT_EBPF_DIR"), "/pod.o"));

/// The path of the program that judges questions instead of connections: tests and benchmarks load it.
#[cfg(any(test, feature = "testing"))]
pub const CLASSIFIER: &str = concat!(env!("AMBIT_EBPF_DIR"), "/classify.o");
