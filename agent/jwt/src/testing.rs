//! Issuers for tests.

#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests call them"
)]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use ambit_policy::{Jwks, JwtRule, KeySource, TokenLocation, TokenPresence};

/// Shared, because making an RSA key takes long.
static RSA: LazyLock<TestIssuer> = LazyLock::new(TestIssuer::new_rsa);

/// An issuer that signs tokens.
pub enum TestIssuer {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair, &'static str),
    Ed25519(Ed25519KeyPair),
}

impl TestIssuer {
    /// An issuer with an RSA key, the same for each call.
    pub fn rsa() -> &'static Self {
        &RSA
    }

    /// An issuer with a new RSA key.
    pub fn new_rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"))
    }

    /// An issuer with a key of a curve: `P-256`, `P-384` or `P-521`.
    pub fn ec(curve: &'static str) -> Self {
        let algorithm: &'static EcdsaSigningAlgorithm = match curve {
            "P-256" => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            "P-384" => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            _ => &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
        };
        Self::Ec(EcdsaKeyPair::generate(algorithm).expect("a key"), curve)
    }

    /// An issuer with an Ed25519 key.
    pub fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().expect("a key"))
    }

    /// The public key, as a JWK without `kid`.
    pub fn jwk(&self) -> Value {
        match self {
            Self::Rsa(pair) => {
                let key = pair.public_key();
                let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
                json!({
                    "kty": "RSA",
                    "n": number(key.modulus().big_endian_without_leading_zero()),
                    "e": number(key.exponent().big_endian_without_leading_zero()),
                })
            }
            Self::Ec(pair, curve) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let [x, y] = [x, y].map(|number| URL_SAFE_NO_PAD.encode(number));
                json!({"kty": "EC", "crv": curve, "x": x, "y": y})
            }
            Self::Ed25519(pair) => {
                let x = URL_SAFE_NO_PAD.encode(pair.public_key());
                json!({"kty": "OKP", "crv": "Ed25519", "x": x})
            }
        }
    }

    /// A set with its key.
    pub fn jwks(&self) -> Value {
        json!({"keys": [self.jwk()]})
    }

    /// `alg` of an ordinary token.
    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::Ec(_, "P-256") => "ES256",
            Self::Ec(_, "P-384") => "ES384",
            Self::Ec(..) => "ES512",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let padding: &'static dyn signature::RsaEncoding = match algorithm {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut bytes = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut bytes)
                    .expect("signed");
                bytes
            }
            Self::Ec(pair, _) => pair
                .sign(&random, message)
                .expect("signed")
                .as_ref()
                .to_vec(),
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// A token with a given header, signed by its `alg`.
    pub fn token_with_header(&self, header: &Value, claims: &Value) -> String {
        let algorithm = header["alg"].as_str().unwrap_or_default();
        let signed = unsigned(header, claims);
        let signature = self.sign(algorithm, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// An ordinary token.
    pub fn token(&self, claims: &Value) -> String {
        self.token_with_header(&json!({"alg": self.algorithm(), "typ": "JWT"}), claims)
    }

    /// A rule for its tokens.
    pub fn rule(&self, issuer: &str) -> JwtRule {
        rule_with_keys(issuer, &self.jwks())
    }
}

/// Rules of one namespace, in the form for [`crate::KeyCache::wanted`].
pub fn in_one_namespace<'a>(
    rules: impl IntoIterator<Item = &'a JwtRule>,
) -> impl Iterator<Item = (&'a Arc<str>, &'a JwtRule)> {
    static NAMESPACE: LazyLock<Arc<str>> = LazyLock::new(|| "default".into());
    rules.into_iter().map(|rule| (&*NAMESPACE, rule))
}

/// The part of a token that is signed.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", encode(header), encode(claims))
}

/// A rule with inline keys.
pub fn rule_with_keys(issuer: &str, jwks: &Value) -> JwtRule {
    let jwks = Jwks::parse(jwks.to_string().as_bytes()).expect("usable");
    JwtRule {
        keys: KeySource::Inline(Arc::new(jwks)),
        ..rule(issuer)
    }
}

/// A rule without keys.
pub fn rule(issuer: &str) -> JwtRule {
    let nobody = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    JwtRule {
        issuer: Some(issuer.to_owned()),
        audiences: Vec::new(),
        keys: KeySource::Inline(Arc::new(Jwks::parse(nobody.as_bytes()).expect("usable"))),
        locations: TokenLocation::defaults(),
        presence: TokenPresence::Optional,
        payload_header: None,
        claim_headers: Vec::new(),
        forwards_original: false,
        timeout: Duration::from_secs(5),
        space_delimited_claims: Vec::new(),
    }
}
