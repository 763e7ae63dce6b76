use crate::{NetnsCookie, assert_size};

/// What the kernel programs know about the node: the only entry of the `NODE` map.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug, PartialEq, Eq))]
pub struct NodeSettings {
    /// The node's network namespace, in which the agent runs.
    pub host_netns: NetnsCookie,
    /// The id of the cgroup above all pods, including hostNetwork pods; 0 if there is none.
    pub pods_cgroup: u64,
    /// The depth of that cgroup below the root of the cgroup2 hierarchy, for
    /// `bpf_get_current_ancestor_cgroup_id`.
    pub pods_cgroup_level: u32,
    /// The agent's process: its thread group id in the initial pid namespace. The connect hook notes it when
    /// the agent proves itself at its start; it is 0 until then. It only takes rights away: what this
    /// process dials never counts as the node's own traffic.
    pub agent: u32,
}
assert_size!(NodeSettings, 24);
