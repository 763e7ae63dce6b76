//! What the mesh consists of: workloads, services and the policy objects that apply to them, as one
//! consistent, immutable [`Snapshot`].
//!
//! A source of configuration (`ambit_source`) makes snapshots; everything else reads them.

mod backends;
mod classes;
mod destination;
mod endpoint_slice;
mod identity;
mod lookalike;
mod mesh_settings;
mod namespace;
mod object;
mod protocol;
mod range;
mod revision;
mod service;
mod snapshot;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod trust;
mod workload;

pub use backends::{PodBehind, ServiceEndpoint};
pub use destination::{Destination, PodEndpoint};
pub use endpoint_slice::{EndpointSlice, EndpointState, SliceEndpoint, SlicePort};
pub use identity::{IdentityError, TrustDomain, WorkloadIdentity};
pub use lookalike::folded;
pub use mesh_settings::{
    AuthorizerApi, BodyEncoding, BodyExcess, BodyInCheck, ExtensionProvider, HeaderPattern,
    HeaderPatternError, HttpApi, MeshSettings, OnError, PathNormalization, ProviderService,
};
pub use namespace::{DATAPLANE_MODE_LABEL, DataplaneMode, NamespaceInfo};
pub use object::{Fault, ObjectName, ObjectOrigin, PolicyKind, PolicyObject};
pub use protocol::AppProtocol;
pub use range::MeshRanges;
pub use revision::{REVISION_LABEL, Revision, RevisionError};
pub use service::{Service, ServicePort, TargetPort};
pub use snapshot::{Snapshot, SnapshotParts};
pub use trust::TrustBundle;
pub use workload::{IstioClaim, Membership, NetnsReference, NeverEnrolled, Workload};
