//! The agent's answers to operators: JSON over HTTP/1.1 on a unix socket that only root can open.
//!
//! [`request`] and [`answer`] are the protocol, which both sides use.

pub mod answer;
pub mod client;
pub mod request;
pub mod server;
pub mod socket;
