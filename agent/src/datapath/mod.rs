//! The kernel side of a node: programs, maps, enrolled pods, and the agent's own connections.
//!
//! [`Node`] installs the programs and owns the tables; [`PodProgram`] attaches to one pod;
//! [`PodDatapath`] is what the proxy sees of a pod.

mod counters;
mod denials;
mod dial;
mod error;
mod ids;
mod mesh;
mod node;
mod objects;
mod pins;
mod pod_program;
mod pod_table;
mod ticket;

pub use counters::Counters;
pub use denials::{DenialReader, KernelDenial};
pub use dial::{AuthorizedStream, Caller, Delivery, DialError, PodDatapath, UnjudgedStream};
pub use error::DatapathError;
pub use node::Node;
pub use pins::PinDirectory;
