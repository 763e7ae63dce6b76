//! What the daemons `ambit run` and `ambit ca serve` have in common: small HTTP servers, the limit of
//! file descriptors, and the signals that end them.

pub mod descriptors;
pub mod http;
pub mod signals;
