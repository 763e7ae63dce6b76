//! JSON Web Key Sets (RFC 7517): the public keys of a token's issuer.

use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;
use serde_json::error::Category;

use ambit_input::bytes_without_mark;

/// The sizes of RSA moduli that are accepted, in bits: at least what RFC 7518, section 3.3, demands, and
/// at most what the cryptographic library supports. Other keys are left out of their set.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The most keys that a set may have. A token without `kid` is tried with all of them.
const MAX_KEYS: usize = 128;

/// Why a text is not a set of keys that can verify tokens.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JwksError {
    /// Not JSON, or without `keys`.
    #[error("this is not a JSON Web Key Set ({0}); it needs a list \"keys\"")]
    Malformed(String),
    /// Too many keys.
    #[error("the set has {0} keys, and at most {MAX_KEYS} are accepted; remove retired ones")]
    TooMany(usize),
    /// No key can verify a token.
    #[error(
        "none of the keys can verify a token; the set needs an RSA key of 2048 bits or more, a P-256, \
         P-384 or P-521 key, or an Ed25519 key (shared secrets, \"oct\", are not accepted)"
    )]
    NoUsableKey,
}

/// A signature algorithm (RFC 7518, section 3.1; RFC 8037). `none` is not supported, and neither are
/// shared secrets: whoever can verify a token with one can also make one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

impl Algorithm {
    /// The algorithms of RSA keys.
    const RSA: [Self; 6] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
    ];
}

/// The algorithm is not supported.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the algorithm is not supported; use RS*, PS*, ES* or EdDSA")]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        Ok(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "EdDSA" => Self::EdDsa,
            _ => return Err(UnknownAlgorithm),
        })
    }
}

/// An elliptic curve of ECDSA (RFC 7518, section 6.2.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "P-256" => Some(Self::P256),
            "P-384" => Some(Self::P384),
            "P-521" => Some(Self::P521),
            _ => None,
        }
    }

    /// The length of a coordinate, in bytes.
    pub fn coordinate_length(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

/// The numbers of a public key, big-endian.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum KeyMaterial {
    /// RSA.
    Rsa {
        /// `n`, without leading zeros.
        modulus: Vec<u8>,
        /// `e`, without leading zeros.
        exponent: Vec<u8>,
    },
    /// ECDSA.
    Ec {
        /// `crv`.
        curve: Curve,
        /// `x` and `y` as an uncompressed point (SEC 1, section 2.3.3). It has not been checked that it
        /// lies on the curve.
        point: Vec<u8>,
    },
    /// Ed25519 (RFC 8037).
    Ed25519([u8; 32]),
}

impl KeyMaterial {
    /// The algorithms that the key can be used with.
    pub fn algorithms(&self) -> &'static [Algorithm] {
        match self {
            Self::Rsa { .. } => &Algorithm::RSA,
            Self::Ec { curve, .. } => match curve {
                Curve::P256 => &[Algorithm::Es256],
                Curve::P384 => &[Algorithm::Es384],
                Curve::P521 => &[Algorithm::Es512],
            },
            Self::Ed25519(_) => &[Algorithm::EdDsa],
        }
    }
}

/// A key that can verify tokens.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Jwk {
    /// `kid`, unless it is empty.
    pub id: Option<String>,
    /// `alg`; `None` means any that fits the key.
    pub algorithm: Option<Algorithm>,
    /// The key.
    pub material: KeyMaterial,
}

/// The usable keys of a set; at least one if it was read by [`Jwks::parse`]. Keys of unknown kinds are
/// left out (RFC 7517, section 5).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Jwks(Vec<Jwk>);

impl Jwks {
    /// Reads a set.
    ///
    /// # Errors
    /// [`JwksError`] if it is not a set, or has no usable key, or too many.
    pub fn parse(json: &[u8]) -> Result<Self, JwksError> {
        let json = bytes_without_mark(json);
        let set: SetFields = serde_json::from_slice(json).map_err(malformed)?;
        if set.keys.len() > MAX_KEYS {
            return Err(JwksError::TooMany(set.keys.len()));
        }
        let keys: Vec<Jwk> = set.keys.into_iter().filter_map(usable).collect();
        if keys.is_empty() {
            return Err(JwksError::NoUsableKey);
        }
        Ok(Self(keys))
    }

    /// The empty set, which verifies no token.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Its keys.
    pub fn keys(&self) -> &[Jwk] {
        &self.0
    }
}

/// Says where the fault is. The message does not repeat the text, which may be long.
fn malformed(error: serde_json::Error) -> JwksError {
    let (line, column) = (error.line(), error.column());
    let fault = match error.classify() {
        Category::Data => "it does not have the fields of a set",
        Category::Syntax => "it is not JSON",
        Category::Eof => "it is cut off",
        Category::Io => "it cannot be read",
    };
    JwksError::Malformed(format!("{fault}, line {line}, column {column}"))
}

#[derive(Deserialize)]
struct SetFields {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct KeyFields {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Reads a key; `None` if it cannot verify signatures.
fn usable(key: Value) -> Option<Jwk> {
    let fields: KeyFields = serde_json::from_value(key).ok()?;
    let is_for_signatures = fields
        .purpose
        .as_deref()
        .is_none_or(|purpose| purpose == "sig");
    let verifies = |operations: &Vec<String>| operations.iter().any(|name| name == "verify");
    if !is_for_signatures || !fields.key_ops.as_ref().is_none_or(verifies) {
        return None;
    }
    let material = match fields.kty.as_str() {
        "RSA" => rsa(&fields)?,
        "EC" => ec(&fields)?,
        "OKP" => ed25519(&fields)?,
        _ => return None,
    };
    let algorithm = match &fields.alg {
        Some(name) => Some(name.parse().ok()?),
        None => None,
    };
    if algorithm.is_some_and(|algorithm| !material.algorithms().contains(&algorithm)) {
        return None;
    }
    Some(Jwk {
        id: fields.kid.filter(|id| !id.is_empty()),
        algorithm,
        material,
    })
}

fn rsa(fields: &KeyFields) -> Option<KeyMaterial> {
    let modulus = number(fields.n.as_deref()?)?;
    let exponent = number(fields.e.as_deref()?)?;
    let bits = modulus.len() * 8 - usize::try_from(modulus.first()?.leading_zeros()).ok()?;
    RSA_BITS
        .contains(&bits)
        .then_some(KeyMaterial::Rsa { modulus, exponent })
}

fn ec(fields: &KeyFields) -> Option<KeyMaterial> {
    let curve = Curve::parse(fields.crv.as_deref()?)?;
    let mut point = vec![0x04];
    for coordinate in [&fields.x, &fields.y] {
        let bytes = URL_SAFE_NO_PAD.decode(coordinate.as_deref()?).ok()?;
        if bytes.len() != curve.coordinate_length() {
            return None;
        }
        point.extend(bytes);
    }
    Some(KeyMaterial::Ec { curve, point })
}

fn ed25519(fields: &KeyFields) -> Option<KeyMaterial> {
    if fields.crv.as_deref()? != "Ed25519" {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(fields.x.as_deref()?).ok()?;
    bytes.try_into().ok().map(KeyMaterial::Ed25519)
}

/// A Base64urlUInt (RFC 7518, section 2) that is not zero, without leading zeros.
fn number(text: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let first = bytes.iter().position(|&byte| byte != 0)?;
    Some(bytes[first..].to_vec())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn base64(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn rsa_key() -> Value {
        json!({"kty": "RSA", "kid": "a", "n": base64(&[0xc1; 256]), "e": "AQAB"})
    }

    fn with(mut key: Value, field: &str, value: impl Into<Value>) -> Value {
        key[field] = value.into();
        key
    }

    fn parse(keys: &[Value]) -> Result<Jwks, JwksError> {
        Jwks::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    #[test]
    fn every_kind_of_public_key_is_read() {
        let p256 = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig",
            "x": base64(&[1; 32]), "y": base64(&[2; 32])});
        let ed25519 = json!({"kty": "OKP", "crv": "Ed25519", "x": base64(&[3; 32]),
            "key_ops": ["verify"]});
        let set = parse(&[rsa_key(), p256, ed25519]).expect("usable");
        let [rsa, ec, okp] = set.keys() else {
            panic!("{set:?}")
        };
        assert_eq!(rsa.id.as_deref(), Some("a"));
        assert_eq!(rsa.algorithm, None);
        assert_eq!(ec.algorithm, Some(Algorithm::Es256));
        assert_eq!(okp.material, KeyMaterial::Ed25519([3; 32]));
        let padded = [&[0, 0][..], &[0xc1; 256]].concat();
        let same = parse(&[with(rsa_key(), "n", base64(&padded))]).expect("usable");
        assert_eq!(same.keys()[0], *rsa);
    }

    #[test]
    fn an_empty_kid_counts_as_none() {
        let set = parse(&[with(rsa_key(), "kid", "")]).expect("usable");
        assert_eq!(set.keys()[0].id, None);
    }

    #[test]
    fn an_unusable_key_is_left_out_and_does_not_spoil_the_set() {
        for useless in [
            json!({"kty": "oct", "k": base64(&[7; 64]), "alg": "HS256"}),
            with(rsa_key(), "alg", "HS256"),
            with(rsa_key(), "alg", "none"),
            with(rsa_key(), "alg", "ES256"),
            with(rsa_key(), "alg", "RSA-OAEP"),
            with(rsa_key(), "use", "enc"),
            with(rsa_key(), "key_ops", json!(["encrypt"])),
            with(rsa_key(), "n", base64(&[0xc1; 128])),
            with(rsa_key(), "n", base64(&[0xc1; 1025])),
            with(rsa_key(), "n", base64(&[0; 256])),
            with(rsa_key(), "n", ""),
            with(rsa_key(), "n", "not base64!"),
            with(rsa_key(), "kid", 7),
            json!({"kty": "EC", "crv": "P-256", "x": base64(&[1; 31]), "y": base64(&[2; 32])}),
            json!({"kty": "EC", "crv": "secp256k1", "x": base64(&[1; 32]), "y": base64(&[2; 32])}),
            json!({"kty": "OKP", "crv": "X25519", "x": base64(&[3; 32])}),
            json!({"kty": "AKP"}),
            json!("a text"),
        ] {
            assert_eq!(
                parse(std::slice::from_ref(&useless)),
                Err(JwksError::NoUsableKey),
                "{useless}"
            );
            let set = parse(&[useless, rsa_key()]).expect("one is usable");
            assert_eq!(set.keys().len(), 1);
        }
    }

    #[test]
    fn malformed_and_large_sets_are_refused() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"keys": {}}"#,
            r#"{"keys": [], "keys": []}"#,
        ] {
            let result = Jwks::parse(text.as_bytes());
            assert!(matches!(result, Err(JwksError::Malformed(_))), "{text}");
        }
        let long = format!(r#"{{"keys": "{}"}}"#, "x".repeat(100_000));
        let error = Jwks::parse(long.as_bytes()).expect_err("no list");
        assert!(error.to_string().len() < 200, "{}", error.to_string().len());
        assert_eq!(parse(&[]), Err(JwksError::NoUsableKey));
        let many = vec![rsa_key(); MAX_KEYS + 1];
        assert_eq!(parse(&many), Err(JwksError::TooMany(MAX_KEYS + 1)));
    }
}
