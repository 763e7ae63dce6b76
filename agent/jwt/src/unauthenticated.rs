//! Why a request's token is not accepted.

use http::{HeaderValue, StatusCode};

/// As much of a request's URL as goes into the answer, in bytes.
const MAX_REALM: usize = 256;

/// Why a request's token is not accepted. Displays as a sentence for an operator, which has no part
/// of the token but its issuer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unauthenticated {
    /// Not three parts, or too long.
    #[error(
        "the request's token is no signed JWT of at most {} bytes; send one, or none",
        super::unverified::MAX_TOKEN
    )]
    Malformed,
    /// The header is no JSON object without repeated keys, or has a field of a wrong type.
    #[error("the header of the request's JWT is malformed; the issuer has to mend it")]
    MalformedHeader,
    /// `alg` is missing, `none`, of a shared secret, or unknown; or `crit` asks for more.
    #[error(
        "the request's JWT is signed in a way that is not supported; the issuer has to use RS*, \
         PS*, ES* or EdDSA, and no \"crit\""
    )]
    UnsupportedAlgorithm,
    /// The payload is no JSON object without repeated keys, or has a claim of a wrong type.
    #[error("the payload of the request's JWT is malformed; the issuer has to mend it")]
    MalformedPayload,
    /// The signature is not base64url.
    #[error("the signature of the request's JWT is malformed; the issuer has to mend it")]
    MalformedSignature,
    /// No rule with this issuer looks for tokens where this one was.
    #[error(
        "no RequestAuthentication knows the issuer {issuer:?} of the request's JWT at the place \
         where it was; add a rule for it, or send no such token"
    )]
    UnknownIssuer {
        /// `iss`.
        issuer: String,
    },
    /// `nbf` is yet to come.
    #[error("the JWT of the issuer {issuer:?} is not valid yet; compare the clocks")]
    NotYetValid {
        /// `iss`.
        issuer: String,
    },
    /// `exp` has passed.
    #[error("the JWT of the issuer {issuer:?} has expired; the caller has to get a new one")]
    Expired {
        /// `iss`.
        issuer: String,
    },
    /// None of `aud` is one of the rule's.
    #[error(
        "the JWT of the issuer {issuer:?} is for other audiences; ask the issuer for one of the \
         rule's audiences, or add the token's to the rule"
    )]
    OtherAudience {
        /// `iss`.
        issuer: String,
    },
    /// The issuer's keys could not be had.
    #[error(
        "there are no keys to verify the JWT of the issuer {issuer:?} with; see `ambit status` for \
         why they could not be fetched"
    )]
    NoKeys {
        /// `iss`.
        issuer: String,
    },
    /// No key of the issuer fits `kid` and `alg`.
    #[error("the issuer {issuer:?} has no key for the kid and alg of the request's JWT")]
    UnknownKey {
        /// `iss`.
        issuer: String,
    },
    /// The signature is not of the issuer's key.
    #[error("the JWT is not signed by a key of its issuer {issuer:?}; it may be forged")]
    BadSignature {
        /// `iss`.
        issuer: String,
    },
    /// A rule requires a token, and the request has none for it.
    #[error(
        "the request lacks a JWT that a RequestAuthentication requires (presence: REQUIRED); the \
         caller has to send one"
    )]
    Missing,
    /// Too many keys, or too large ones, would have to be tried.
    #[error(
        "verifying the request's tokens, the last of them of the issuer {issuer:?}, would take more \
         than {} verifications with an RSA key of 2048 bits; the issuer has to give its keys a \"kid\" \
         and name it in its tokens, or to have fewer or smaller keys",
        super::budget::MAX_WORK
    )]
    TooCostly {
        /// `iss`.
        issuer: String,
    },
    /// More different tokens than are looked at.
    #[error(
        "the request has more than {} different tokens; send fewer",
        super::extract::MAX_TOKENS
    )]
    TooManyTokens,
}

impl Unauthenticated {
    /// The status of the answer (RFC 6750, section 3.1). As in Envoy, a valid token for another
    /// audience is not invalid: it only gives no access here.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::OtherAudience { .. } => StatusCode::FORBIDDEN,
            Self::Malformed
            | Self::MalformedHeader
            | Self::UnsupportedAlgorithm
            | Self::MalformedPayload
            | Self::MalformedSignature
            | Self::UnknownIssuer { .. }
            | Self::NotYetValid { .. }
            | Self::Expired { .. }
            | Self::NoKeys { .. }
            | Self::UnknownKey { .. }
            | Self::BadSignature { .. }
            | Self::TooCostly { .. }
            | Self::Missing
            | Self::TooManyTokens => StatusCode::UNAUTHORIZED,
        }
    }

    /// The body of the answer, in Envoy's words.
    pub fn body(&self) -> &'static str {
        match self {
            Self::Malformed => {
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
            }
            Self::MalformedHeader => "Jwt header is an invalid JSON",
            Self::UnsupportedAlgorithm => "Jwt header [alg] is not supported",
            Self::MalformedPayload => "Jwt payload is an invalid JSON",
            Self::MalformedSignature => "Jwt signature is an invalid Base64url encoded",
            Self::UnknownIssuer { .. } => "Jwt issuer is not configured",
            Self::NotYetValid { .. } => "Jwt not yet valid",
            Self::Expired { .. } => "Jwt is expired",
            Self::OtherAudience { .. } => "Audiences in Jwt are not allowed",
            Self::NoKeys { .. } => "Jwks remote fetch is failed",
            Self::UnknownKey { .. } => "Jwks doesn't have key to match kid or alg from Jwt",
            Self::BadSignature { .. } | Self::TooCostly { .. } => "Jwt verification fails",
            Self::Missing => "Jwt is missing",
            Self::TooManyTokens => "Found multiple Jwt tokens",
        }
    }

    /// The WWW-Authenticate header of the answer (RFC 6750, section 3), which names no error if
    /// there was no token. The realm is the request's URL without its query; what could end the
    /// quotes is left out of it.
    pub fn www_authenticate(&self, realm: &str) -> HeaderValue {
        let is_plain = |&c: &char| c.is_ascii_graphic() && c != '"' && c != '\\';
        let realm: String = realm.chars().filter(is_plain).take(MAX_REALM).collect();
        let error = match self {
            Self::Missing => "",
            _ => ", error=\"invalid_token\"",
        };
        let value = format!("Bearer realm=\"{realm}\"{error}");
        HeaderValue::try_from(value)
            .unwrap_or_else(|_| HeaderValue::from_static("Bearer error=\"invalid_token\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_that_of_envoy_and_says_nothing_of_the_token() {
        let issuer = || "https://issuer".to_owned();
        for (error, body) in [
            (
                Unauthenticated::Expired { issuer: issuer() },
                "Jwt is expired",
            ),
            (
                Unauthenticated::OtherAudience { issuer: issuer() },
                "Audiences in Jwt are not allowed",
            ),
            (
                Unauthenticated::UnknownKey { issuer: issuer() },
                "Jwks doesn't have key to match kid or alg from Jwt",
            ),
        ] {
            assert_eq!(error.body(), body);
            assert!(error.to_string().contains("\"https://issuer\""));
        }
    }

    #[test]
    fn a_wrong_audience_is_forbidden_and_everything_else_unauthorized() {
        let issuer = || "i".to_owned();
        let audience = Unauthenticated::OtherAudience { issuer: issuer() };
        assert_eq!(audience.status(), StatusCode::FORBIDDEN);
        for error in [
            Unauthenticated::Malformed,
            Unauthenticated::Missing,
            Unauthenticated::Expired { issuer: issuer() },
            Unauthenticated::NotYetValid { issuer: issuer() },
            Unauthenticated::UnknownIssuer { issuer: issuer() },
            Unauthenticated::BadSignature { issuer: issuer() },
            Unauthenticated::NoKeys { issuer: issuer() },
        ] {
            assert_eq!(error.status(), StatusCode::UNAUTHORIZED, "{error}");
        }
    }

    #[test]
    fn who_sent_no_token_is_not_told_that_it_is_invalid() {
        let value = Unauthenticated::Missing.www_authenticate("http://a/b");
        assert_eq!(value, "Bearer realm=\"http://a/b\"");
    }

    #[test]
    fn a_url_cannot_break_out_of_the_header() {
        let value = Unauthenticated::Malformed.www_authenticate("http://a/b\", x=\"\\\r\ny\u{e9}");
        assert_eq!(
            value,
            "Bearer realm=\"http://a/b,x=y\", error=\"invalid_token\""
        );
        let long = Unauthenticated::Malformed.www_authenticate(&"a".repeat(10_000));
        assert!(long.len() < 2 * MAX_REALM);
    }
}
