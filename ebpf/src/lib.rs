//! What Ambit's kernel programs share: maps, counting, reporting, verdicts.
//!
//! Two objects are built from this crate. `node` has the programs of a node's cgroup and is loaded
//! once; `pod` has `sk_lookup` and is loaded for each enrolled pod with constants and maps of its
//! own. Maps in [`maps`] are shared between all of them through their pins. A third object, `classify`,
//! is for tests and benchmarks of the verdict.
#![no_std]

pub mod context;
pub mod count;
pub mod maps;
pub mod pods;
pub mod report;
pub mod verdict;
