//! The key that a certificate is issued for.

use rcgen::{KeyPair, PublicKeyData, SignatureAlgorithm};
use rustls::pki_types::CertificateSigningRequestDer;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
    OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::pem;

/// The shortest RSA key that is accepted, in bits.
pub(super) const RSA_SHORTEST: usize = 2048;

/// The largest request that is read, in bytes. The longest RSA key with its signature needs a quarter
/// of it.
const LONGEST_REQUEST: usize = 16 * 1024;

/// Why a certificate signing request (RFC 2986) is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CsrError {
    /// It is not exactly one request.
    #[error("the certificate signing request cannot be read: {0}")]
    Unreadable(String),
    /// It is not signed by its own key: the sender does not hold the key, or the request was changed.
    #[error("the certificate signing request is not signed by its own key: {0}")]
    Signature(String),
    /// Its key is too weak, or of an unsupported kind.
    #[error(
        "the certificate signing request's key is {0}; make one of ECDSA P-256 or P-384, Ed25519, \
         or RSA of at least {RSA_SHORTEST} bits"
    )]
    Key(String),
}

/// A public key whose holder has proved to hold the private key, strong enough to be certified.
///
/// Nothing but the key is taken from a request: the CA decides about names and extensions.
#[derive(Clone, Debug)]
pub struct SubjectKey {
    raw: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl SubjectKey {
    /// The key of a request in PEM.
    ///
    /// # Errors
    /// [`CsrError`], also for more than one request.
    pub fn from_csr_pem(text: &[u8]) -> Result<Self, CsrError> {
        if text.len() > 2 * LONGEST_REQUEST {
            return Err(CsrError::Unreadable("it is too long".to_owned()));
        }
        let request: CertificateSigningRequestDer<'_> =
            pem::only(text).map_err(CsrError::Unreadable)?;
        Self::from_csr_der(&request)
    }

    /// The key of a request in DER.
    ///
    /// # Errors
    /// [`CsrError`].
    pub fn from_csr_der(request: &[u8]) -> Result<Self, CsrError> {
        if request.len() > LONGEST_REQUEST {
            return Err(CsrError::Unreadable("it is too long".to_owned()));
        }
        let (rest, parsed) = X509CertificationRequest::from_der(request)
            .map_err(|error| CsrError::Unreadable(error.to_string()))?;
        if !rest.is_empty() {
            return Err(CsrError::Unreadable("something follows it".to_owned()));
        }
        let info = &parsed.certification_request_info.subject_pki;
        let algorithm = strong(info)?;
        let signature = &parsed.signature_algorithm.algorithm;
        if [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA].contains(signature) {
            return Err(CsrError::Signature(
                "SHA-1 signatures are not accepted".to_owned(),
            ));
        }
        parsed
            .verify_signature()
            .map_err(|error| CsrError::Signature(error.to_string()))?;
        Ok(Self {
            raw: info.subject_public_key.data.to_vec(),
            algorithm,
        })
    }

    /// The public half of a key of this process.
    pub fn of(key: &KeyPair) -> Self {
        Self {
            raw: key.der_bytes().to_vec(),
            algorithm: key.algorithm(),
        }
    }

    /// Whether the key can encrypt, as TLS below 1.3 needs without Diffie-Hellman.
    pub(super) fn is_rsa(&self) -> bool {
        [
            &rcgen::PKCS_RSA_SHA256,
            &rcgen::PKCS_RSA_SHA384,
            &rcgen::PKCS_RSA_SHA512,
        ]
        .contains(&self.algorithm)
    }
}

impl PublicKeyData for SubjectKey {
    fn der_bytes(&self) -> &[u8] {
        &self.raw
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

/// The signature algorithm of a key, if the key is strong enough.
fn strong(info: &SubjectPublicKeyInfo<'_>) -> Result<&'static SignatureAlgorithm, CsrError> {
    let kind = &info.algorithm.algorithm;
    if *kind == OID_SIG_ED25519 {
        return Ok(&rcgen::PKCS_ED25519);
    }
    if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = info.algorithm.parameters.as_ref();
        return match curve.and_then(|curve| curve.as_oid().ok()) {
            Some(curve) if curve == OID_EC_P256 => Ok(&rcgen::PKCS_ECDSA_P256_SHA256),
            Some(curve) if curve == OID_NIST_EC_P384 => Ok(&rcgen::PKCS_ECDSA_P384_SHA384),
            Some(curve) => Err(CsrError::Key(format!("on the curve {curve}"))),
            None => Err(CsrError::Key("on a curve without a name".to_owned())),
        };
    }
    if *kind != OID_PKCS1_RSAENCRYPTION {
        return Err(CsrError::Key(format!("of the kind {kind}")));
    }
    match info.parsed() {
        Ok(PublicKey::RSA(key)) => match bits(key.modulus) {
            RSA_SHORTEST.. => Ok(&rcgen::PKCS_RSA_SHA256),
            short => Err(CsrError::Key(format!("RSA of {short} bits"))),
        },
        Ok(_) => Err(CsrError::Key(
            "labelled as RSA but not an RSA key".to_owned(),
        )),
        Err(error) => Err(CsrError::Unreadable(error.to_string())),
    }
}

/// The length of an unsigned number, in bits.
fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let significant = number.get(zeros..).unwrap_or_default();
    let unused = significant.first().map_or(0, |byte| byte.leading_zeros());
    significant.len() * 8 - unused as usize
}
