//! HBONE: HTTP/2 CONNECT over mutual TLS, wire-compatible with Istio ambient.

mod connection;
mod error;
mod forwarded;
mod occupancy;
mod pool;
mod settings;
mod transport;
mod tunnel;

pub(crate) use error::TunnelError;
pub(crate) use forwarded::parse_forwarded;
pub(crate) use occupancy::Lease;
pub(crate) use pool::TunnelPool;
#[cfg(test)]
pub(crate) use settings::ample_server as ample_server_settings;
pub(crate) use settings::{TLS_BUFFER, server as server_settings, widen};
pub(crate) use transport::Transport;
pub(crate) use tunnel::Tunnel;
