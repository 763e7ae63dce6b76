//! The messages of `istio.v1.auth.IstioCertificateService` (security/v1alpha1/ca.proto), as far as
//! they are used.

use std::collections::BTreeMap;

use prost::{Message, Oneof};

/// Where the call is made.
pub(crate) const CREATE_CERTIFICATE: &str =
    "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// The field of the metadata that names whose certificate is asked for.
pub(crate) const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// `istio.v1.auth.IstioCertificateRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CertificateRequest {
    /// PEM.
    #[prost(string, tag = "1")]
    pub(crate) csr: String,
    /// Seconds.
    #[prost(int64, tag = "3")]
    pub(crate) validity_duration: i64,
    #[prost(message, optional, tag = "4")]
    pub(crate) metadata: Option<Struct>,
}

/// `istio.v1.auth.IstioCertificateResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CertificateResponse {
    /// PEM, leaf first, the roots last.
    #[prost(string, repeated, tag = "1")]
    pub(crate) cert_chain: Vec<String>,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Struct {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(crate) fields: BTreeMap<String, Value>,
}

/// `google.protobuf.Value`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Value {
    #[prost(oneof = "Kind", tags = "3")]
    pub(crate) kind: Option<Kind>,
}

/// `google.protobuf.Value.kind`; there are others.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Kind {
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
