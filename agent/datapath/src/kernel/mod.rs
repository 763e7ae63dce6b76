//! Typed access to the kernel's interfaces: bpf(2), netlink, namespaces, cgroups and /proc. Nothing here
//! knows of pods or policies.

pub(crate) mod bpf;
pub(crate) mod capabilities;
pub mod cgroup;
pub(crate) mod grace;
pub(crate) mod link;
pub(crate) mod local_route;
pub(crate) mod netlink;
pub mod netns;
pub(crate) mod processes;
