//! Why a request's token is not accepted.

use http::{HeaderValue, StatusCode};

/// How much of a request's URL goes into the answer, in bytes.
const MAX_REALM: usize = 256;

/// Why a request's token is not accepted. Displays as a sentence for an operator, without any part of
/// the token except its issuer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unauthenticated {
    /// Not three parts, or too long.
    #[error(
        "the request's token is not a signed JWT of at most {} bytes; send a valid one, or none",
        super::unverified::MAX_TOKEN
    )]
    Malformed,
    /// The header is not a JSON object, has a repeated key, or a field of a wrong type.
    #[error("the header of the request's JWT is malformed; the issuer has to correct it")]
    MalformedHeader,
    /// `alg` is missing, `none`, for a shared secret, or unknown; or there is a `crit`.
    #[error(
        "the signature algorithm of the request's JWT is not supported; the issuer has to use RS*, PS*, \
         ES* or EdDSA, and no \"crit\""
    )]
    UnsupportedAlgorithm,
    /// The payload is not a JSON object, has a repeated key, or a claim of a wrong type.
    #[error("the payload of the request's JWT is malformed; the issuer has to correct it")]
    MalformedPayload,
    /// The signature is not base64url.
    #[error("the signature of the request's JWT is malformed; the issuer has to correct it")]
    MalformedSignature,
    /// No rule with this issuer looks at the place where the token was.
    #[error(
        "no RequestAuthentication accepts the issuer {issuer:?} of the request's JWT at the place where \
         it was sent; add a rule for it, or do not send the token"
    )]
    UnknownIssuer {
        /// `iss`.
        issuer: String,
    },
    /// `nbf` is in the future.
    #[error("the JWT of the issuer {issuer:?} is not valid yet; compare the clocks")]
    NotYetValid {
        /// `iss`.
        issuer: String,
    },
    /// `exp` is in the past.
    #[error("the JWT of the issuer {issuer:?} has expired; the caller has to get a new one")]
    Expired {
        /// `iss`.
        issuer: String,
    },
    /// No audience in `aud` is one of the rule's.
    #[error(
        "the JWT of the issuer {issuer:?} is for other audiences; get one for an audience of the rule, \
         or add the token's audience to the rule"
    )]
    OtherAudience {
        /// `iss`.
        issuer: String,
    },
    /// The issuer's keys could not be fetched.
    #[error(
        "there are no keys to verify the JWT of the issuer {issuer:?}; `ambit status` says why they \
         could not be fetched"
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
    /// The signature was not made with a key of the issuer.
    #[error("the JWT is not signed by a key of its issuer {issuer:?}; it may be forged")]
    BadSignature {
        /// `iss`.
        issuer: String,
    },
    /// A rule requires a token, and the request has none that is for it.
    #[error(
        "a RequestAuthentication requires a JWT (presence: REQUIRED) that the request does not have; the \
         caller has to send one"
    )]
    Missing,
    /// Too many keys, or too large ones, would have to be tried.
    #[error(
        "verifying the request's tokens, the last of them of the issuer {issuer:?}, would take more \
         than {} verifications with an RSA key of 2048 bits; the issuer has to give its keys a \"kid\" \
         and name it in its tokens, or use fewer or smaller keys",
        super::budget::MAX_WORK
    )]
    TooCostly {
        /// `iss`.
        issuer: String,
    },
    /// Too many different tokens.
    #[error(
        "the request has more than {} different tokens; send fewer",
        super::extract::MAX_TOKENS
    )]
    TooManyTokens,
}

impl Unauthenticated {
    /// The status of the answer (RFC 6750, section 3.1). As in Envoy, a token for another audience is
    /// valid but does not give access here.
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

    /// The WWW-Authenticate header of the answer (RFC 6750, section 3), without an error if there was no
    /// token. The realm is the request's URL without its query. Characters that could end the quotes are
    /// left out.
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
    fn the_answer_is_as_in_envoy_and_reveals_nothing_of_the_token() {
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
    fn without_a_token_the_answer_does_not_say_that_it_is_invalid() {
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
