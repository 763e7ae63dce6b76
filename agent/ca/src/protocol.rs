//! The messages of `istio.v1.auth.IstioCertificateService`, as far as they are used.

use std::collections::HashMap;

use prost::Message;

/// Where the call is made.
pub const CREATE_CERTIFICATE_PATH: &str =
    "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// The field of [`CertificateRequest::metadata`] with the SPIFFE ID that a node's agent asks for.
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
    /// What else is asked for.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

/// `IstioCertificateResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct CertificateResponse {
    /// PEM: the leaf, the intermediates, and in the last one all roots.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, Message)]
pub struct Struct {
    /// Values by name.
    #[prost(map = "string, message", tag = "1")]
    pub fields: HashMap<String, Value>,
}

/// `google.protobuf.Value`, of which texts are read only.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Value {
    /// The text; `None` where the value is of another kind.
    #[prost(string, optional, tag = "3")]
    pub string_value: Option<String>,
}

impl Struct {
    /// One text by its name.
    pub fn of_text(name: &str, text: String) -> Self {
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
    fn the_wire_is_that_of_istio() {
        let request = CertificateRequest {
            csr: "c".to_owned(),
            validity_duration: 7,
            metadata: Some(Struct::of_text("n", "t".to_owned())),
        };
        // csr = 1, validity_duration = 3, metadata = 4 {fields = 1 {key = 1, value = 2 {text = 3}}}
        let wire = b"\x0a\x01c\x18\x07\x22\x0a\x0a\x08\x0a\x01n\x12\x03\x1a\x01t";
        assert_eq!(request.encode_to_vec(), wire);
        assert_eq!(CertificateRequest::decode(&wire[..]), Ok(request));
        let response = CertificateResponse {
            cert_chain: vec!["a".to_owned(), "b".to_owned()],
        };
        assert_eq!(response.encode_to_vec(), b"\x0a\x01a\x0a\x01b");
    }

    #[test]
    fn a_value_of_another_kind_is_no_text() {
        // number_value = 2
        let number = Value::decode(&b"\x11\0\0\0\0\0\0\0\0"[..]).expect("a value");
        assert_eq!(number.string_value, None);
    }
}
