//! Istio's CA protocol, `istio.v1.auth`, as bytes.

use std::collections::HashMap;

use prost::Message;

/// The path of the one method.
pub const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// The field of the metadata that says whose certificate is wanted.
pub const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// gRPC's status: the request is none.
pub const INVALID_ARGUMENT: u32 = 3;
/// gRPC's status: the caller is known, and may not.
pub const PERMISSION_DENIED: u32 = 7;
/// gRPC's status: the caller has asked too often.
pub const RESOURCE_EXHAUSTED: u32 = 8;
/// gRPC's status UNAVAILABLE.
pub const UNAVAILABLE: u32 = 14;
/// gRPC's status: it is not known who the caller is.
pub const UNAUTHENTICATED: u32 = 16;

/// `IstioCertificateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateRequest {
    /// The certificate signing request, in PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// How long the certificate is to be valid, in seconds.
    #[prost(int64, tag = "3")]
    pub seconds: i64,
    /// What else is asked.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Struct {
    /// Values by their names.
    #[prost(map = "string, message", tag = "1")]
    pub fields: HashMap<String, Value>,
}

/// `google.protobuf.Value`, of text.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Value {
    /// The text.
    #[prost(string, optional, tag = "3")]
    pub text: Option<String>,
}

/// `IstioCertificateResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateResponse {
    /// In PEM, leaf first and roots last.
    #[prost(string, repeated, tag = "1")]
    pub chain: Vec<String>,
}

/// A message of gRPC: not compressed, its length, and itself.
pub fn frame(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), &message].concat()
}
