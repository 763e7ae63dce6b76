//! Names, origins and revisions of Kubernetes objects, and the policy objects as they are written.

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

/// A fault of the configuration that an operator has to correct. `ambit status` shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// The faulty file, document or object.
    pub subject: String,
    /// What is wrong, in which field, and what to do, as a sentence.
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

/// A policy object as its source has it. Only `ambit_policy` interprets it, so that an unknown field is
/// not lost on the way.
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
    /// `spec`; null if absent.
    pub spec: serde_json::Value,
    /// Where it came from.
    pub origin: ObjectOrigin,
}

/// The label that restricts an object to one revision of the control plane.
pub const REVISION_LABEL: &str = "istio.io/rev";

/// The longest value of a label, in bytes.
const LONGEST: usize = 63;

/// The revision of the control plane that this agent acts as: istiod's `REVISION`, which Istio's charts
/// set to `default` by default.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revision(Arc<str>);

/// The text is not a [`Revision`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0:?} is not a revision; it needs to be up to 63 letters, digits, '-', '_' and '.', with \
     a letter or digit at both ends"
)]
pub struct RevisionError(String);

impl Revision {
    /// Reads a revision, which may be empty.
    ///
    /// # Errors
    /// [`RevisionError`] if no label can have this value: no object for a revision would apply.
    pub fn new(text: &str) -> Result<Self, RevisionError> {
        let bytes = text.as_bytes();
        let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        let is_end = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
        let is_value = bytes.len() <= LONGEST && bytes.iter().all(is_inner);
        if !is_value || !is_end(bytes.first()) || !is_end(bytes.last()) {
            return Err(RevisionError(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// Whether an object with this value of [`REVISION_LABEL`] applies: it does if it has no label, or if
    /// the two are equal. As in Istio, `default` is a revision like any other. A control plane without a
    /// revision takes all objects.
    pub fn takes(&self, label: Option<&str>) -> bool {
        self.0.is_empty() || label.is_none_or(|label| *label == *self.0)
    }
}

impl Default for Revision {
    fn default() -> Self {
        Self("default".into())
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_to_be_equal_if_there_is_one() {
        for (own, label, is_taken) in [
            ("default", None, true),
            ("default", Some("default"), true),
            ("default", Some("canary"), false),
            ("default", Some(""), false),
            ("default", Some("Default"), false),
            ("canary", None, true),
            ("canary", Some("canary"), true),
            ("canary", Some("default"), false),
            ("canary", Some("canary-2"), false),
            ("", None, true),
            ("", Some("canary"), true),
        ] {
            let revision = Revision::new(own).expect(own);
            assert_eq!(revision.takes(label), is_taken, "{own:?} {label:?}");
        }
        assert_eq!(Revision::default().to_string(), "default");
    }

    #[test]
    fn values_that_no_label_can_have_are_refused() {
        let longest = "a".repeat(LONGEST);
        for text in ["", "1-29-1", "a", "A_b.c", &longest] {
            assert!(Revision::new(text).is_ok(), "{text:?}");
        }
        let longer = "a".repeat(LONGEST + 1);
        for text in ["a,b", " ", "a b", "-a", "a.", "é", &longer] {
            assert!(Revision::new(text).is_err(), "{text:?}");
        }
    }
}
