//! The mesh: workloads, Services and policy objects, as one consistent, immutable [`Snapshot`].
//!
//! A source of configuration (`ambit_source`) makes snapshots; everything else reads them.

mod address_roles;
mod backends;
mod classes;
mod destination;
mod identity;
mod mesh_settings;
mod object;
mod service;
mod snapshot;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod workload;

pub use address_roles::{ApplicationAddress, CallerAddress, Direction, OriginalDestination};
pub use backends::{PodBehind, ServiceEndpoint};
pub use classes::MeshRanges;
pub use destination::{Destination, PodEndpoint};
pub use identity::{IdentityError, TrustBundle, TrustDomain, WorkloadIdentity};
pub use mesh_settings::{
    AuthorizerApi, BodyEncoding, BodyExcess, BodyInCheck, ExtensionProvider, HeaderPattern,
    HeaderPatternError, HttpApi, MeshSettings, OnError, PathNormalization, ProviderService, folded,
};
pub use object::{
    Fault, ObjectName, ObjectOrigin, PolicyKind, PolicyObject, REVISION_LABEL, Revision,
    RevisionError,
};
pub use service::{
    AppProtocol, EndpointSlice, EndpointState, Service, ServicePort, SliceEndpoint, SlicePort,
    TargetPort,
};
pub use snapshot::{Snapshot, SnapshotParts};
pub use workload::{
    DATAPLANE_MODE_LABEL, DataplaneMode, IstioClaim, Membership, NamespaceInfo, NetnsReference,
    NeverEnrolled, Workload,
};
