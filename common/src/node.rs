use crate::{NetnsCookie, assert_size};

/// What the kernel programs know of the node: the single entry of the `NODE` map.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug, PartialEq, Eq))]
pub struct NodeSettings {
    /// The agent's own (host) network namespace.
    pub host_netns: NetnsCookie,
    /// Id of the cgroup below which every pod runs, hostNetwork pods too; 0 where there is none.
    pub pods_cgroup: u64,
    /// Depth of that cgroup below the cgroup2 mount's root, for
    /// `bpf_get_current_ancestor_cgroup_id`.
    pub pods_cgroup_level: u32,
    /// The agent's process (its thread group's id in the initial pid namespace), as the connect hook
    /// saw it when the agent proved itself; 0 until then. It takes away, and grants nothing: what this
    /// process dials is never taken for the node's own.
    pub agent: u32,
}
assert_size!(NodeSettings, 24);
