//! What `ambit run` and `ambit ca serve` have in common as daemons: they answer small HTTP requests, raise
//! their limit of file descriptors, and end when they are told to.

pub mod descriptors;
pub mod http;
pub mod signals;
