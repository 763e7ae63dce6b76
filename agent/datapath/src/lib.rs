//! The kernel side of a node: programs, maps, enrolled pods, and the agent's own connections.
//!
//! [`NodePrograms`] installs the programs; [`Enroller`] attaches them to pods; [`PolicyTables`] holds the
//! policies in the kernel; [`PodDatapath`] is what the proxy sees of a pod.

pub mod agent_sockets;
mod attach;
mod bpf_call;
pub mod bpffs;
mod capabilities;
pub mod cgroup;
pub mod check;
mod counters;
mod denials;
mod dial;
mod enrolment;
mod error;
pub mod foreign;
mod grace;
mod ids;
mod leftovers;
pub mod link;
pub mod listeners;
mod local_route;
mod mesh;
mod netlink;
pub mod netns;
mod node;
mod objects;
mod owner;
pub mod passed;
mod pins;
mod pod_program;
mod pod_slots;
mod pod_table;
mod policy_maps;
mod probe;
pub mod processes;
mod request_stream;
pub mod sock_diag;
pub mod stock;
mod sweep;
mod tables;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod ticket;
mod ztunnel;

pub use counters::Counters;
pub use denials::{DenialReader, KernelDenial};
pub use dial::{
    AuthorizedStream, Delivery, DeliveryCaller, DialError, PodDatapath, PodDatapathParts,
    ShardMaps, UnjudgedStream,
};
pub use enrolment::{EnrolError, EnrolledPod, Enroller, EnrollerParts, EntryChange, LocatedNetns};
pub use error::DatapathError;
pub use leftovers::{Leftover, NetnsLife};
pub use listeners::PodListeners;
pub use local_route::is_local;
pub use mesh::{MeshFault, MeshTable};
pub use node::{KernelLog, NodePrograms};
#[cfg(any(test, feature = "testing"))]
pub use objects::CLASSIFIER;
pub use owner::PodOwner;
pub use pins::Pins;
pub use request_stream::{
    ApplicationConnection, ApplicationRequests, BodyPresence, ReadyRequests, RequestStream,
    SentRequest, Unasked,
};
pub use sweep::{PassedRules, SweepError, close_passed, reset_agents};
pub use tables::{AssignedPolicies, PolicySetCounts, PolicyTables};
pub use ztunnel::{Ztunnel, ZtunnelError, ztunnel_in};
