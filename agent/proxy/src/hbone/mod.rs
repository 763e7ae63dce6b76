//! HBONE: HTTP/2 CONNECT over mutual TLS, wire-compatible with Istio ambient.

mod connection;
mod error;
mod forwarded;
mod pool;
mod transport;

pub(crate) use error::TunnelError;
pub(crate) use forwarded::parse_forwarded;
pub(crate) use pool::TunnelPool;
pub(crate) use transport::Transport;
