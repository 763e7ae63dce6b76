//! HBONE: HTTP/2 CONNECT over mutual TLS, wire-compatible with Istio ambient.

mod connect;
mod connection;
mod first_bytes;
mod pool;
pub(crate) mod server;

pub use connect::{ConnectRequestError, ConnectTarget, TunnelAddresses, connect_target};

pub(crate) use first_bytes::FirstBytes;
pub(crate) use pool::{TunnelError, TunnelPool};
