//! datapath

mod bpf_call;
pub mod netns;
#[cfg(test)]
mod test_netns;
