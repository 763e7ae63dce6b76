//! Parses a token as received. Nothing in it has been verified.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::strict_json;
use super::unauthenticated::Unauthenticated;
use ambit_policy::Algorithm;

/// The longest token, in bytes.
pub(super) const MAX_TOKEN: usize = 16 * 1024;

/// A token in JWS compact serialisation (RFC 7515, section 7.1).
#[derive(Debug)]
pub(super) struct Unverified<'a> {
    pub(super) header: TokenHeader,
    pub(super) claims: UnverifiedClaims,
    /// The signed bytes: header and payload, as received.
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
    /// The payload, as received.
    pub(super) payload: &'a str,
}

/// The header (RFC 7515, section 4.1). The fields with which a token could name its own key (`jwk`, `jku`,
/// `x5c`, `x5u`) are ignored: an issuer's keys come from the policy.
#[derive(Debug)]
pub(super) struct TokenHeader {
    pub(super) algorithm: Algorithm,
    /// `kid`, unless it is empty, as in Envoy.
    pub(super) key_id: Option<String>,
}

/// The payload. Times are seconds since 1970, without fractions.
#[derive(Debug)]
pub(super) struct UnverifiedClaims {
    /// `iss`; empty if it is absent.
    pub(super) issuer: String,
    /// `sub`; empty if it is absent.
    pub(super) subject: String,
    pub(super) audiences: Vec<String>,
    /// `exp`. As in Envoy, a token without it does not expire.
    pub(super) expires: Option<u64>,
    pub(super) not_before: Option<u64>,
    /// All claims.
    pub(super) all: Map<String, Value>,
}

impl<'a> Unverified<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Unauthenticated> {
        if text.len() > MAX_TOKEN {
            return Err(Unauthenticated::Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Unauthenticated::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Unauthenticated::Malformed)?;
        if payload.contains('.') {
            return Err(Unauthenticated::Malformed);
        }
        let object = |text: &str| strict_json::object(&URL_SAFE_NO_PAD.decode(text).ok()?);
        let header = object(header).ok_or(Unauthenticated::MalformedHeader)?;
        let claims = object(payload).ok_or(Unauthenticated::MalformedPayload)?;
        Ok(Self {
            header: TokenHeader::read(&header)?,
            claims: UnverifiedClaims::read(claims)?,
            signed: signed.as_bytes(),
            signature: URL_SAFE_NO_PAD
                .decode(signature)
                .map_err(|_| Unauthenticated::MalformedSignature)?,
            payload,
        })
    }
}

impl TokenHeader {
    fn read(fields: &Map<String, Value>) -> Result<Self, Unauthenticated> {
        if fields.contains_key("crit") {
            return Err(Unauthenticated::UnsupportedAlgorithm);
        }
        let algorithm = fields.get("alg").and_then(Value::as_str);
        let parsed = algorithm.and_then(|name| name.parse().ok());
        let key_id = match fields.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()).filter(|id| !id.is_empty()),
            Some(_) => return Err(Unauthenticated::MalformedHeader),
        };
        Ok(Self {
            algorithm: parsed.ok_or(Unauthenticated::UnsupportedAlgorithm)?,
            key_id,
        })
    }
}

impl UnverifiedClaims {
    fn read(all: Map<String, Value>) -> Result<Self, Unauthenticated> {
        Ok(Self {
            issuer: text(all.get("iss"))?,
            subject: text(all.get("sub"))?,
            audiences: texts(all.get("aud"))?,
            expires: time(all.get("exp"))?,
            not_before: time(all.get("nbf"))?,
            all,
        })
    }
}

/// A string; empty if it is absent.
fn text(value: Option<&Value>) -> Result<String, Unauthenticated> {
    match value {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(Unauthenticated::MalformedPayload),
    }
}

/// A string or a list of strings; empty if it is absent.
fn texts(value: Option<&Value>) -> Result<Vec<String>, Unauthenticated> {
    match value {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(|value| text(Some(value))).collect(),
        Some(_) => Ok(vec![text(value)?]),
    }
}

/// A NumericDate (RFC 7519, section 2), not before 1970; `None` if it is absent.
fn time(value: Option<&Value>) -> Result<Option<u64>, Unauthenticated> {
    let Some(value) = value else {
        return Ok(None);
    };
    // The conversion saturates, which is right for dates that far away.
    let whole = |seconds: f64| (seconds >= 0.0).then_some(seconds as u64);
    let seconds = value.as_u64().or_else(|| value.as_f64().and_then(whole));
    seconds.map(Some).ok_or(Unauthenticated::MalformedPayload)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = r#"{"alg": "ES256", "kid": "k"}"#;

    fn token(header: &str, payload: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!(
            "{}.{}.{}",
            encode(header),
            encode(payload),
            encode("signature")
        )
    }

    fn header_error(header: &str) -> Option<Unauthenticated> {
        Unverified::parse(&token(header, "{}")).err()
    }

    fn claims(payload: &str) -> Option<UnverifiedClaims> {
        let token = token(HEADER, payload);
        match Unverified::parse(&token) {
            Ok(token) => Some(token.claims),
            Err(error) => {
                assert_eq!(error, Unauthenticated::MalformedPayload);
                None
            }
        }
    }

    #[test]
    fn a_token_is_parsed() {
        let text = token(
            HEADER,
            r#"{"iss": "i", "sub": "s", "aud": ["a"], "exp": 7, "nbf": 1.9}"#,
        );
        let token = Unverified::parse(&text).expect("well-formed");
        assert_eq!(token.header.algorithm, Algorithm::Es256);
        assert_eq!(token.header.key_id.as_deref(), Some("k"));
        assert_eq!(
            (token.claims.issuer.as_str(), token.claims.subject.as_str()),
            ("i", "s")
        );
        assert_eq!(token.claims.audiences, ["a"]);
        assert_eq!(
            (token.claims.expires, token.claims.not_before),
            (Some(7), Some(1))
        );
        assert_eq!(token.signature, b"signature");
        assert!(text.as_bytes().starts_with(token.signed));
    }

    #[test]
    fn absent_claims_are_accepted_and_wrong_types_are_not() {
        let empty = claims("{}").expect("well-formed");
        assert_eq!((empty.issuer.as_str(), empty.subject.as_str()), ("", ""));
        assert_eq!((empty.expires, empty.not_before), (None, None));
        for payload in [
            r#"{"iss": 5}"#,
            r#"{"sub": null}"#,
            r#"{"sub": ["a"]}"#,
            r#"{"aud": 5}"#,
            r#"{"aud": ["a", 5]}"#,
            r#"{"exp": "7"}"#,
            r#"{"exp": -1}"#,
            r#"{"nbf": null}"#,
            r#"{"sub": "a", "sub": "b"}"#,
            r#"["iss"]"#,
            "",
        ] {
            assert!(claims(payload).is_none(), "{payload}");
        }
    }

    #[test]
    fn j_11_no_signature_shared_secrets_and_critical_extensions_are_refused() {
        for header in [
            r#"{"alg": "none"}"#,
            r#"{"alg": "None"}"#,
            r#"{"alg": "HS256"}"#,
            r#"{"alg": "rs256"}"#,
            r#"{"alg": ["RS256"]}"#,
            r#"{"alg": null}"#,
            "{}",
            r#"{"alg": "RS256", "crit": ["exp"]}"#,
            r#"{"alg": "RS256", "crit": ["b64"], "b64": false}"#,
        ] {
            let error = header_error(header);
            assert_eq!(
                error,
                Some(Unauthenticated::UnsupportedAlgorithm),
                "{header}"
            );
        }
        for header in [
            r#"{"alg": "RS256", "kid": 5}"#,
            r#"{"alg": "RS256", "alg": "none"}"#,
            "[]",
            "",
        ] {
            let error = header_error(header);
            assert_eq!(error, Some(Unauthenticated::MalformedHeader), "{header}");
        }
    }

    #[test]
    fn other_forms_and_encodings_are_refused() {
        let well_formed = token(HEADER, "{}");
        assert!(Unverified::parse(&well_formed).is_ok());
        for malformed in [
            "",
            "a",
            "a.b",
            &format!("{well_formed}.x"),
            &format!(".{well_formed}"),
        ] {
            let error = Unverified::parse(malformed).expect_err("malformed");
            assert_eq!(error, Unauthenticated::Malformed, "{malformed}");
        }
        for suffix in ["=", " ", "\n", "+", "é"] {
            let error =
                Unverified::parse(&format!("{well_formed}{suffix}")).expect_err("malformed");
            assert_eq!(error, Unauthenticated::MalformedSignature, "{suffix:?}");
        }
        let long = token(HEADER, &format!("{{\"a\": \"{}\"}}", "a".repeat(MAX_TOKEN)));
        assert_eq!(
            Unverified::parse(&long).err(),
            Some(Unauthenticated::Malformed)
        );
    }
}
