use std::collections::BTreeMap;

/// The label with which a namespace or a pod chooses whether it is in the mesh (Istio ambient).
pub const DATAPLANE_MODE_LABEL: &str = "istio.io/dataplane-mode";

/// A namespace, as far as the mesh is concerned.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NamespaceInfo {
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
}

impl NamespaceInfo {
    /// What its label chooses for those of its pods that have no label of their own.
    pub fn dataplane_mode(&self) -> DataplaneMode {
        DataplaneMode::of(&self.labels)
    }
}

/// What the label [`DATAPLANE_MODE_LABEL`] of one object chooses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataplaneMode {
    /// `ambient`: in the mesh.
    Ambient,
    /// `none`, or a value that Ambit does not know: not in the mesh.
    Outside,
    /// No such label: a pod follows its namespace, a namespace is outside.
    Unset,
}

impl DataplaneMode {
    /// The mode that an object's labels choose.
    pub fn of(labels: &BTreeMap<String, String>) -> Self {
        match labels.get(DATAPLANE_MODE_LABEL).map(String::as_str) {
            Some("ambient") => Self::Ambient,
            Some(_) => Self::Outside,
            None => Self::Unset,
        }
    }
}
