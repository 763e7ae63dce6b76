//! What the kernel makes of what the datapath writes.

mod classifier;
mod verdict;
