use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Namespace and name of a Kubernetes object. Displays as `namespace/name`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ObjectName {
    /// The namespace; empty for objects that have none.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjectName {
    /// A name in a namespace.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Serialize for ObjectName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ObjectName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.split_once('/') {
            Some((namespace, name)) => Ok(Self::new(namespace, name)),
            None => Err(serde::de::Error::custom(format!(
                "{text:?} is not of the form namespace/name"
            ))),
        }
    }
}

/// Where an object came from, for messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ObjectOrigin {
    /// A document of a file; documents count from 1.
    File {
        /// The file.
        path: Arc<PathBuf>,
        /// Its document.
        document: usize,
    },
    /// The Kubernetes API.
    Kubernetes,
}

impl fmt::Display for ObjectOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, document } => write!(f, "{}, document {document}", path.display()),
            Self::Kubernetes => f.write_str("the Kubernetes API"),
        }
    }
}

/// A problem with configuration that an operator has to mend; shown in `ambit status`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Fault {
    /// What is at fault: a file, a document of it, an object.
    pub subject: String,
    /// What happened, which field, and what to do, as a sentence.
    pub message: String,
    /// Whether an older version of `subject` is still in force.
    pub last_good_in_force: bool,
}

/// The kinds of policy object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum PolicyKind {
    /// `security.istio.io` AuthorizationPolicy, v1 or v1beta1.
    AuthorizationPolicy,
    /// `security.istio.io` PeerAuthentication, v1 or v1beta1.
    PeerAuthentication,
    /// `security.istio.io` RequestAuthentication, v1 or v1beta1.
    RequestAuthentication,
}

impl PolicyKind {
    /// The object's `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::RequestAuthentication => "RequestAuthentication",
        }
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A policy object as its source gave it. `ambit_policy` gives it its meaning, so that a field
/// which nobody knows is seen there and not lost on the way.
#[derive(Clone, PartialEq, Debug)]
pub struct PolicyObject {
    /// The kind.
    pub kind: PolicyKind,
    /// Namespace and name.
    pub name: ObjectName,
    /// The label [`super::REVISION_LABEL`].
    pub revision: Option<String>,
    /// `metadata.annotations`.
    pub annotations: std::collections::BTreeMap<String, String>,
    /// `metadata.creationTimestamp`, RFC 3339 in UTC (orders as text); absent in most files.
    pub created: Option<String>,
    /// `spec`; null where absent.
    pub spec: serde_json::Value,
    /// Where it came from.
    pub origin: ObjectOrigin,
}
