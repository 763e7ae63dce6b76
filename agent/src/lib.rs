//! Ambit: an eBPF-accelerated, per-node ambient agent for Kubernetes.
//!
//! Data flows one way: [`source`] → [`model`] → [`policy`] → [`datapath`] and [`proxy`] →
//! [`observe`]; see `ARCHITECTURE.md`.

pub mod admin;
mod admission;
pub mod authority;
pub mod authorizer;
pub mod ca;
pub mod cli;
pub mod datapath;
pub mod files;
pub mod identity;
pub mod jwt;
pub mod model;
pub mod observe;
pub mod policy;
pub mod proxy;
pub mod run;
pub mod source;
#[cfg(test)]
mod testing;
pub mod validate;
#[doc(hidden)]
pub mod work;
