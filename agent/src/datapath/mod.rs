//! datapath

mod bpf_call;
pub mod bpffs;
mod capabilities;
pub mod cgroup;
pub mod check;
pub mod foreign;
pub mod link;
pub mod listeners;
mod netlink;
pub mod netns;
pub mod passed;
mod probe;
pub mod processes;
pub mod sock_diag;
pub mod stock;
#[cfg(test)]
mod testing;
