//! HBONE: HTTP/2 CONNECT over mutual TLS, wire-compatible with Istio ambient.

mod error;
mod forwarded;
mod pool;
mod settings;
mod tunnel;

pub(crate) use error::TunnelError;
pub(crate) use forwarded::parse_forwarded;
pub(crate) use pool::TunnelPool;
pub(crate) use settings::server as server_settings;
pub(crate) use tunnel::Tunnel;
