//! Tests of the kernel programs on the maps that the datapath writes.

mod classifier;
mod connects;
mod dialled;
mod node_maps;
mod pods;
mod verdict;
