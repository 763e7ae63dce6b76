//! The node proxy: carries connections between pods' processes and HBONE tunnels.
//!
//! One thread per shard, each with a runtime of its own; a connection stays on the shard that
//! accepted it. No failure leads to plaintext.

mod accept;
mod authority;
mod authorizer_network;
mod carrier;
mod connect;
mod connections;
mod consult;
mod consult_loop;
mod delivery;
mod ends;
mod events;
mod hbone;
mod inbound;
mod inbound_call;
mod limits;
mod node;
mod opaque;
mod outbound;
mod outbound_call;
mod places;
mod plaintext;
mod pod;
mod refusal;
mod report;
mod requests;
mod reset;
mod route;
mod shard;
mod stats;
mod subject;
mod tasks;
#[cfg(test)]
mod test_objects;
mod turns;
mod verdict;

pub use authority::AuthorityError;
pub use connect::{ConnectError, ConnectTarget, connect_target};
pub use connections::ConnectionInfo;
pub use limits::ProxyLimits;
pub use node::{PodAttachment, Proxy, ProxyConfig, ProxyError};
pub use stats::ProxyStats;
pub use subject::{Direction, Party, Path, Subject};
pub use verdict::PodRemoval;
