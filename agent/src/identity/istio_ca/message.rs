//! The messages of `istio.v1.auth.IstioCertificateService` (security/v1alpha1/ca.proto), as far as
//! they are used.

use std::collections::BTreeMap;

use prost::{Message, Oneof};

/// Where the call is made.
pub(in crate::identity) const CREATE_CERTIFICATE: &str =
    "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// The field of the metadata that names whose certificate is asked for.
pub(in crate::identity) const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// `istio.v1.auth.IstioCertificateRequest`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::identity) struct CertificateRequest {
    /// PEM.
    #[prost(string, tag = "1")]
    pub(in crate::identity) csr: String,
    /// Seconds.
    #[prost(int64, tag = "3")]
    pub(in crate::identity) validity_duration: i64,
    #[prost(message, optional, tag = "4")]
    pub(in crate::identity) metadata: Option<Struct>,
}

/// `istio.v1.auth.IstioCertificateResponse`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::identity) struct CertificateResponse {
    /// PEM, leaf first, the roots last.
    #[prost(string, repeated, tag = "1")]
    pub(in crate::identity) cert_chain: Vec<String>,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::identity) struct Struct {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(in crate::identity) fields: BTreeMap<String, Value>,
}

/// `google.protobuf.Value`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::identity) struct Value {
    #[prost(oneof = "Kind", tags = "3")]
    pub(in crate::identity) kind: Option<Kind>,
}

/// `google.protobuf.Value.kind`; there are others.
#[derive(Clone, PartialEq, Oneof)]
pub(in crate::identity) enum Kind {
    #[prost(string, tag = "3")]
    String(String),
}

impl Struct {
    /// A structure of one text.
    pub(super) fn of(name: &str, text: String) -> Self {
        let value = Value {
            kind: Some(Kind::String(text)),
        };
        Self {
            fields: BTreeMap::from([(name.to_owned(), value)]),
        }
    }
}
