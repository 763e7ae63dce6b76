//! Issuers of JSON Web Tokens.

use anyhow::{Result, anyhow};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// Somebody who signs tokens with an RSA key.
pub struct TokenIssuer(RsaKeyPair);

impl TokenIssuer {
    /// One with its own key.
    ///
    /// # Errors
    ///
    /// If none can be made.
    pub fn new() -> Result<Self> {
        let key = RsaKeyPair::generate(KeySize::Rsa2048);
        key.map(Self).map_err(|_| anyhow!("no RSA key"))
    }

    /// The set of its public key.
    pub fn jwks(&self) -> Value {
        let key = self.0.public_key();
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"keys": [{
            "kty": "RSA",
            "kid": "key",
            "n": number(key.modulus().big_endian_without_leading_zero()),
            "e": number(key.exponent().big_endian_without_leading_zero()),
        }]})
    }

    /// An ordinary token with these claims.
    ///
    /// # Errors
    ///
    /// If it cannot be signed.
    pub fn token(&self, claims: &Value) -> Result<String> {
        self.token_with(&json!({"alg": "RS256", "typ": "JWT", "kid": "key"}), claims)
    }

    /// A token with a custom header, signed with RS256 whatever the header says.
    ///
    /// # Errors
    ///
    /// If it cannot be signed.
    pub fn token_with(&self, header: &Value, claims: &Value) -> Result<String> {
        let signed = unsigned(header, claims);
        let mut signature = vec![0; self.0.public_modulus_len()];
        let random = SystemRandom::new();
        self.0
            .sign(
                &RSA_PKCS1_SHA256,
                &random,
                signed.as_bytes(),
                &mut signature,
            )
            .map_err(|_| anyhow!("not signed"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// A token that is authenticated by HS256 with the issuer's public key for a secret, which
    /// everybody knows.
    pub fn token_with_public_key_as_secret(&self, claims: &Value) -> String {
        let signed = unsigned(&json!({"alg": "HS256", "typ": "JWT", "kid": "key"}), claims);
        let secret = hmac::Key::new(hmac::HMAC_SHA256, self.0.public_key().as_ref());
        let tag = hmac::sign(&secret, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    }
}

/// The part of a token that is signed.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", encode(header), encode(claims))
}
