//! Pods in the kernel: how they are enrolled, served and closed, whose a network namespace is, and what an
//! agent finds when it starts.

pub(crate) mod enrolment;
pub(crate) mod leftovers;
pub(crate) mod owner;
pub(crate) mod table;
pub(crate) mod ztunnel;
