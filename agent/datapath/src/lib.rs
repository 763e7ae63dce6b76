//! The kernel side of a node: programs, maps, enrolled pods, and the agent's own connections.
//!
//! | folder | holds |
//! |---|---|
//! | `programs` | loads the kernel programs and attaches them: [`NodePrograms`], and each pod's `sk_lookup` |
//! | `pins` | the pin directory, where programs, maps and links outlive the agent |
//! | `pod` | enrols pods, serves and closes them: [`Enroller`], and the table of pods |
//! | `policy` | the policies in the kernel: [`PolicyTables`] |
//! | `mesh` | the table of destinations: [`MeshTable`] |
//! | `sockets` | the agent's listeners and connections in a pod: [`PodDatapath`] is what the proxy sees of a pod |
//! | `sweep` | closes connections that no proxy carries and that policy does not allow |
//! | `reports` | counters and denials that the programs report |
//! | `check` | what this kernel has and lacks, and other programs on the same hooks |
//! | `kernel` | bpf(2), netlink, namespaces, cgroups and /proc as typed functions |

pub mod check;
mod error;
mod kernel;
mod mesh;
mod pins;
mod pod;
mod policy;
mod programs;
mod reports;
mod sockets;
mod sweep;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use check::foreign;
pub use error::DatapathError;
pub use kernel::local_route::is_local;
pub use kernel::{cgroup, netns};
pub use mesh::{MeshFault, MeshTable};
pub use pins::Pins;
pub use pins::directory::{PinDirectory, PinDirectoryError};
pub use pod::enrolment::{
    EnrolError, EnrolledPod, Enroller, EnrollerParts, EntryChange, LocatedNetns,
};
pub use pod::leftovers::{Leftover, NetnsLife};
pub use pod::owner::PodOwner;
pub use pod::ztunnel::{Ztunnel, ZtunnelError, ztunnel_in};
pub use policy::{AssignedPolicies, PolicySetCounts, PolicyTables};
#[cfg(any(test, feature = "testing"))]
pub use programs::CLASSIFIER;
pub use programs::KernelLog;
pub use programs::node_programs::NodePrograms;
pub use reports::{Counters, DenialReader, KernelDenial};
pub use sockets::dial::{
    AuthorizedStream, Delivery, DeliveryCaller, DialError, PodDatapath, PodDatapathParts,
    ShardMaps, UnjudgedStream,
};
pub use sockets::failed::RefusedConnects;
pub use sockets::listeners::PodListeners;
pub use sockets::request_stream::{
    ApplicationConnection, ApplicationRequests, BodyPresence, ReadyRequests, RequestStream,
    SentRequest, Unasked,
};
pub use sweep::{PassedRules, SweepError, close_passed, reset_agents};
