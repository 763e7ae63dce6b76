//! HBONE: HTTP/2 CONNECT over mutual TLS, wire-compatible with Istio ambient.

mod connect;
mod connection;
mod pool;
pub(crate) mod server;
mod transport;

pub use connect::{ConnectRequestError, ConnectTarget, TunnelAddresses, connect_target};

pub(crate) use pool::{TunnelError, TunnelPool};
