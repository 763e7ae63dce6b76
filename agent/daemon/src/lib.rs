//! What the daemons `ambit run` and `ambit ca serve` have in common: small HTTP servers, the limits of
//! file descriptors and memory, what goes back to the system, and the signals that end them.

pub mod descriptors;
pub mod heap;
pub mod http;
pub mod memory;
pub mod program;
pub mod signals;
