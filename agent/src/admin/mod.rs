//! The agent's answers to operators: JSON over HTTP/1.1 on a unix socket that only root can open.

pub mod client;
pub mod server;
