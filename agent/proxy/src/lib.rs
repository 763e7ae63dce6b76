//! The node proxy: carries connections between pods' processes and HBONE tunnels.
//!
//! One thread per shard, each with a runtime of its own; a connection stays on the shard that
//! accepted it. No failure leads to plaintext.

mod authorizers;
mod carrier;
mod connection;
mod delivery;
mod ends;
mod hbone;
mod inbound;
mod limits;
mod node;
mod opaque;
mod outbound;
mod outbound_call;
mod plaintext;
mod requests;
mod route;
mod shard;
#[cfg(test)]
mod test_objects;
mod verdict;

pub use connection::registry::ConnectionInfo;
pub use connection::stats::ProxyStats;
pub use connection::{ConnectionDirection, Party, Path, Subject};
pub use hbone::{ConnectRequestError, ConnectTarget, connect_target};
pub use limits::ProxyLimits;
pub use node::{PodAttachment, Proxy, ProxyConfig, ProxyError};
pub use verdict::PodRemoval;
