//! Keys that are ready to verify signatures.

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents};

use super::unverified::Header;
use crate::policy::{Algorithm, Curve, Jwk, Jwks, KeyMaterial};

/// An issuer's keys.
#[derive(Debug)]
pub struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// For each algorithm that the key can be used with.
    verifiers: Vec<(Algorithm, ParsedPublicKey)>,
}

/// Why no key of a set verifies a signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotSigned {
    /// None is for this `kid` and `alg`.
    NoKey,
    /// The signature is of another key, or of other bytes.
    Mismatch,
}

impl KeySet {
    /// Makes keys ready. One that is no key at all, such as a point that is not on its curve, is
    /// left out; a set without keys verifies nothing.
    pub fn new(jwks: &Jwks) -> Self {
        Self(jwks.keys().iter().filter_map(Key::new).collect())
    }

    /// Whether a key is for a token with this header.
    pub(super) fn has_key_for(&self, header: &Header) -> bool {
        self.verifiers(header).next().is_some()
    }

    /// Verifies the signature of a token's header and payload.
    pub(super) fn verify(
        &self,
        header: &Header,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<(), NotSigned> {
        let mut error = NotSigned::NoKey;
        for verifier in self.verifiers(header) {
            match verifier.verify_sig(signed, signature) {
                Ok(()) => return Ok(()),
                Err(_) => error = NotSigned::Mismatch,
            }
        }
        Err(error)
    }

    /// Keys that go by the token's `kid`, or by no `kid`; all where the token has none. The key
    /// says which algorithms it is for: the token only chooses among them.
    fn verifiers(&self, header: &Header) -> impl Iterator<Item = &ParsedPublicKey> {
        let is_meant = |key: &&Key| match (&header.key_id, &key.id) {
            (Some(wanted), Some(id)) => wanted == id,
            _ => true,
        };
        let keys = self.0.iter().filter(is_meant);
        keys.flat_map(|key| &key.verifiers)
            .filter(|(algorithm, _)| *algorithm == header.algorithm)
            .map(|(_, verifier)| verifier)
    }
}

impl Key {
    fn new(jwk: &Jwk) -> Option<Self> {
        let algorithms = match &jwk.algorithm {
            Some(algorithm) => std::slice::from_ref(algorithm),
            None => jwk.material.algorithms(),
        };
        let ready = |&algorithm| Some((algorithm, verifier(&jwk.material, algorithm)?));
        let verifiers: Option<Vec<_>> = algorithms.iter().map(ready).collect();
        Some(Self {
            id: jwk.id.clone(),
            verifiers: verifiers?,
        })
    }
}

/// `None`: the material is no key, or not for this algorithm.
fn verifier(material: &KeyMaterial, algorithm: Algorithm) -> Option<ParsedPublicKey> {
    match material {
        KeyMaterial::Rsa { modulus, exponent } => {
            let components = RsaPublicKeyComponents {
                n: modulus,
                e: exponent,
            };
            components.to_parsed_public_key(rsa(algorithm)?).ok()
        }
        KeyMaterial::Ec { curve, point } => {
            let parameters = match (curve, algorithm) {
                (Curve::P256, Algorithm::Es256) => &signature::ECDSA_P256_SHA256_FIXED,
                (Curve::P384, Algorithm::Es384) => &signature::ECDSA_P384_SHA384_FIXED,
                (Curve::P521, Algorithm::Es512) => &signature::ECDSA_P521_SHA512_FIXED,
                _ => return None,
            };
            ParsedPublicKey::new(parameters, point).ok()
        }
        KeyMaterial::Ed25519(key) => match algorithm {
            Algorithm::EdDsa => ParsedPublicKey::new(&signature::ED25519, key).ok(),
            _ => None,
        },
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::Es512 | Algorithm::EdDsa => None,
    }
}
