//! What the kernel makes of what the datapath writes.

mod classifier;
mod connects;
mod node_maps;
mod pods;
mod verdict;
