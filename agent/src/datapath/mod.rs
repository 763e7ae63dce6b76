//! datapath

mod bpf_call;
pub mod bpffs;
pub mod link;
pub mod listeners;
mod netlink;
pub mod netns;
pub mod passed;
pub mod sock_diag;
pub mod stock;
#[cfg(test)]
mod test_netns;
