//! Keys in the form that verifies signatures.

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents};

use super::budget::{Cost, Exhausted, VerificationBudget};
use super::unverified::TokenHeader;
use ambit_policy::{Algorithm, Curve, Jwk, Jwks, KeyMaterial};

/// An issuer's keys.
#[derive(Debug)]
pub struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// One verifier for each algorithm that the key can be used with.
    verifiers: Vec<(Algorithm, ParsedPublicKey)>,
    /// The length of every signature with this key, in bytes.
    signature_length: usize,
    cost: Cost,
}

/// Why no key of a set verifies a signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotSigned {
    /// No key is for this `kid` and `alg`.
    NoKey,
    /// The signature is of another key or of other bytes.
    Mismatch,
    /// Trying all keys would cost more than the request's budget.
    TooCostly,
}

impl From<Exhausted> for NotSigned {
    fn from(_: Exhausted) -> Self {
        Self::TooCostly
    }
}

impl KeySet {
    /// Prepares keys. An invalid key, such as a point that is not on its curve, is left out. A set without
    /// keys verifies nothing.
    pub fn new(jwks: &Jwks) -> Self {
        Self(jwks.keys().iter().filter_map(Key::new).collect())
    }

    /// Whether a key of the set is for a token with this header.
    pub(super) fn has_key_for(&self, header: &TokenHeader) -> bool {
        self.verifiers(header).next().is_some()
    }

    /// Verifies the signature of a token's header and payload.
    pub(super) fn verify(
        &self,
        header: &TokenHeader,
        signed: &[u8],
        signature: &[u8],
        budget: &mut VerificationBudget,
    ) -> Result<(), NotSigned> {
        let mut error = NotSigned::NoKey;
        for (key, verifier) in self.verifiers(header) {
            error = NotSigned::Mismatch;
            if key.signature_length != signature.len() {
                continue;
            }
            budget.spend(key.cost)?;
            if verifier.verify_sig(signed, signature).is_ok() {
                return Ok(());
            }
        }
        Err(error)
    }

    /// The keys with the token's `kid`, then those without one, as in Envoy; all keys if the token has no
    /// `kid`. The key determines its algorithms, and the token only chooses among them.
    fn verifiers<'a>(
        &'a self,
        header: &'a TokenHeader,
    ) -> impl Iterator<Item = (&'a Key, &'a ParsedPublicKey)> {
        let named = self.0.iter().filter(|key| key.id.is_some());
        let named = named.filter(|key| header.key_id.is_none() || key.id == header.key_id);
        let nameless = self.0.iter().filter(|key| key.id.is_none());
        named.chain(nameless).flat_map(|key| {
            let meant = key.verifiers.iter();
            let meant = meant.filter(|(algorithm, _)| *algorithm == header.algorithm);
            meant.map(move |(_, verifier)| (key, verifier))
        })
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
            signature_length: signature_length(&jwk.material),
            cost: Cost::of(&jwk.material),
        })
    }
}

/// RFC 8017, section 8; RFC 7518, section 3.4; RFC 8032, section 5.1.6.
fn signature_length(material: &KeyMaterial) -> usize {
    match material {
        KeyMaterial::Rsa { modulus, .. } => modulus.len(),
        KeyMaterial::Ec { curve, .. } => 2 * curve.coordinate_length(),
        KeyMaterial::Ed25519(_) => 64,
    }
}

/// `None` if the key is invalid or not for this algorithm.
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
