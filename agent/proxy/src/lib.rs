//! The node proxy: carries connections between pods' processes and HBONE tunnels.
//!
//! One thread per shard, each with a runtime of its own; a connection stays on the shard that
//! accepted it. No failure leads to plaintext.
//!
//! Start with `inbound`, `outbound` and `verdict`: they are the way of a connection from its accept
//! to its end. `connection` is what is known of one meanwhile. Streams of tunnels are accepted and opened
//! in `hbone`, requests are judged one by one in `requests`.

mod authorizers;
mod connection;
mod failed;
mod handoff;
mod hbone;
mod inbound;
mod limits;
mod node;
mod outbound;
mod requests;
mod route;
mod shard;
mod verdict;

pub use connection::registry::ConnectionInfo;
pub use connection::stats::ProxyStats;
pub use connection::{ConnectionDirection, ConnectionEnd, Path};
pub use handoff::SameNode;
pub use hbone::{ConnectRequestError, ConnectTarget, TunnelAddresses, connect_target};
pub use limits::ProxyLimits;
pub use node::{PodAttachment, Proxy, ProxyConfig, ProxyError};
pub use verdict::PodRemoval;
