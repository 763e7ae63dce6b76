//! The messages of `istio.v1.auth.IstioCertificateService` (Istio's `security/v1alpha1/ca.proto`), with
//! the fields that Ambit uses. The agent sends them as a client, `ambit ca serve` answers them.

use std::collections::HashMap;

use prost::Message;

/// The HTTP/2 path of the call.
pub const CREATE_CERTIFICATE_PATH: &str =
    "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// The field of [`CertificateRequest::metadata`] that holds the SPIFFE ID to issue for, if it is not the
/// caller's own.
pub const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// `IstioCertificateRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct CertificateRequest {
    /// A certificate signing request (RFC 2986) in PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// How long the certificate should be valid, in seconds; zero or less leaves it to the CA.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// Further parameters by name, among them [`IMPERSONATED_IDENTITY`].
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

/// `IstioCertificateResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct CertificateResponse {
    /// PEM blocks: the leaf, the intermediates, and in the last element all roots.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, Message)]
pub struct Struct {
    /// The values, by field name.
    #[prost(map = "string, message", tag = "1")]
    pub fields: HashMap<String, Value>,
}

/// `google.protobuf.Value`. Only strings are read.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Value {
    /// The string; `None` if the value is of another kind.
    #[prost(string, optional, tag = "3")]
    pub string_value: Option<String>,
}

impl Struct {
    /// A structure with one string field.
    pub fn with_string(name: &str, text: String) -> Self {
        let value = Value {
            string_value: Some(text),
        };
        Self {
            fields: HashMap::from([(name.to_owned(), value)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded_as_istio_encodes_them() {
        let request = CertificateRequest {
            csr: "c".to_owned(),
            validity_duration: 7,
            metadata: Some(Struct::with_string("n", "t".to_owned())),
        };
        // csr = 1, validity_duration = 3, metadata = 4 {fields = 1 {key = 1, value = 2 {string = 3}}}
        let wire = b"\x0a\x01c\x18\x07\x22\x0a\x0a\x08\x0a\x01n\x12\x03\x1a\x01t";
        assert_eq!(request.encode_to_vec(), wire);
        assert_eq!(CertificateRequest::decode(&wire[..]), Ok(request));
        let response = CertificateResponse {
            cert_chain: vec!["a".to_owned(), "b".to_owned()],
        };
        assert_eq!(response.encode_to_vec(), b"\x0a\x01a\x0a\x01b");
    }

    #[test]
    fn a_value_of_another_kind_has_no_string() {
        // number_value = 2
        let number = Value::decode(&b"\x11\0\0\0\0\0\0\0\0"[..]).expect("a value");
        assert_eq!(number.string_value, None);
    }
}
