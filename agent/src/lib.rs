//! Ambit: an eBPF-accelerated, per-node ambient agent for Kubernetes.
//!
//! The agent's parts are crates of their own, below this one; `ARCHITECTURE.md` says what each does. Here
//! they are put together.

pub mod admin;
pub mod cli;
pub mod run;
pub mod validate;
