//! What the mesh consists of: workloads, services and the policy objects that apply to them, as one
//! consistent, immutable [`Snapshot`].
//!
//! A source of configuration (`crate::source`) makes snapshots; everything else reads them.

mod identity;
mod object;
mod range;
mod service;
mod snapshot;
mod workload;

pub use identity::{IdentityError, TrustDomain, WorkloadIdentity};
pub use object::{Fault, ObjectName, Origin, PolicyKind, PolicyObject};
pub use range::MeshRanges;
pub use service::{Service, ServicePort, TargetPort};
pub use snapshot::{Destination, NamespaceInfo, Snapshot, SnapshotParts, Target};
pub use workload::{Enrolment, NetnsReference, NeverEnrolled, Workload};
