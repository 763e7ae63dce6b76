//! What Ambit's kernel programs share: maps, pod look-ups, verdicts, counters and denial reports.
//!
//! The agent loads two objects of this crate:
//!
//! | object | loaded | programs, one file for each hook |
//! |---|---|---|
//! | `node` | once for a node, attached to the cgroup above all pods | `connect.rs`, `names.rs` (getpeername, getsockname), `sock_ops.rs` |
//! | `pod` | once for each enrolled pod, with constants and maps of its own | `sk_lookup.rs` |
//!
//! The maps in [`maps`] are shared by all of them through their pins. The agent does not load the other two
//! objects: `classify` serves tests and benchmarks of the verdict, and `calls`, with maps of its own, counts
//! system calls for `cargo xtask bench`.
//!
//! A name that ends in `_be` holds a value in network byte order. Everything else is in host order,
//! except [`ambit_common::Address`], which is in network order inside.
#![no_std]

pub mod context;
pub mod maps;
pub mod pods;
pub mod report;
pub mod verdict;
