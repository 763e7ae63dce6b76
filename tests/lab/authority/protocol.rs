//! Istio's CA protocol, `istio.v1.auth`, as bytes.

use std::collections::HashMap;

use prost::Message;

/// The path of the one method.
pub const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// The field of the metadata with the requested identity.
pub const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// gRPC's status INVALID_ARGUMENT.
pub const INVALID_ARGUMENT: u32 = 3;
/// gRPC's status PERMISSION_DENIED.
pub const PERMISSION_DENIED: u32 = 7;
/// gRPC's status RESOURCE_EXHAUSTED.
pub const RESOURCE_EXHAUSTED: u32 = 8;
/// gRPC's status UNAVAILABLE.
pub const UNAVAILABLE: u32 = 14;
/// gRPC's status UNAUTHENTICATED.
pub const UNAUTHENTICATED: u32 = 16;

/// `IstioCertificateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateRequest {
    /// The certificate signing request, in PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// The requested lifetime, in seconds.
    #[prost(int64, tag = "3")]
    pub seconds: i64,
    /// The metadata of the request.
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

/// `google.protobuf.Value` with a string.
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

/// A gRPC message: not compressed, with its length.
pub fn frame(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), &message].concat()
}
