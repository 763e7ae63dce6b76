//! What a snapshot has that no file says.

use std::sync::Arc;

use ambit_model::{MeshRanges, Revision, TrustBundle};

/// What the mesh is told besides its files.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) trust_bundle: TrustBundle,
    pub(super) root_namespace: Arc<str>,
    pub(super) revision: Revision,
    pub(super) ranges: MeshRanges,
}
