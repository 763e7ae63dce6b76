//! Ambit: an eBPF-accelerated, per-node ambient agent for Kubernetes.
//!
//! The agent's parts are separate crates below this one; `ARCHITECTURE.md` says what each does. This
//! crate puts them together.

pub mod admin;
pub mod cli;
pub mod run;
pub mod validate;
