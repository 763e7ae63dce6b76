//! Who asks: the pod that a service-account token is bound to.

mod offline;
mod online;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;
use http::header::AUTHORIZATION;

pub use offline::{JwksFile, JwksFileError, OfflineReviewer};
pub use online::OnlineReviewer;

use crate::account::ServiceAccount;
use ambit_jwt::Unauthenticated;
use ambit_model::ObjectName;

/// An authenticated caller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthenticatedCaller {
    /// Its service account.
    pub account: ServiceAccount,
    /// The pod that it is.
    pub pod: BoundPod,
    /// The node that its token names.
    pub node: Option<Arc<str>>,
}

/// The pod that a token is bound to: the token ends with it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct BoundPod {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.uid`, which tells it from its successor of the same name.
    pub uid: Arc<str>,
}

/// Why a caller is not authenticated. Has no part of a token but its issuer and account.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallerError {
    /// No `authorization`.
    #[error("the call has no authorization; send `Bearer` and the service account's token")]
    NoToken,
    /// More than one `authorization`: another reader may take the other one.
    #[error("the call has several authorizations; send one")]
    SeveralTokens,
    /// Something else than `Bearer` and a token.
    #[error(
        "the call's authorization is not `Bearer` and a service account's token of at most {} bytes",
        MAX_TOKEN
    )]
    NotBearer,
    /// The token is not accepted.
    #[error("the caller's token is not accepted: {0}")]
    Token(Unauthenticated),
    /// Of somebody else than the cluster.
    #[error(
        "the caller's token is of the issuer {issuer:?}, which is not this cluster's; compare it \
         with --issuer"
    )]
    OtherIssuer {
        /// `iss`.
        issuer: String,
    },
    /// No `exp`.
    #[error("the caller's token does not expire; use a projected service-account token")]
    NoExpiry,
    /// The user is no service account.
    #[error("the caller's token is not of a service account")]
    NotAnAccount,
    /// `kubernetes.io` is missing, malformed, or contradicts `sub`.
    #[error(
        "what the token of {account} says of its pod is missing or contradicts itself; use a \
         projected service-account token"
    )]
    Claims {
        /// Whose token it is.
        account: ServiceAccount,
    },
    /// Bound to no pod: whoever has it can use it anywhere.
    #[error("the token of {account} is bound to no pod; use a projected service-account token")]
    Unbound {
        /// Whose token it is.
        account: ServiceAccount,
    },
    /// The API server does not accept the token.
    #[error("the API server does not accept the caller's token for the audience {audience:?}")]
    NotAccepted {
        /// The audience that it was asked for.
        audience: String,
    },
}

/// Why it is not known who the caller is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReviewError {
    /// The caller is nobody that is known.
    #[error(transparent)]
    Caller(#[from] CallerError),
    /// The API server could not be asked.
    #[error(
        "the caller's token could not be checked with the API server: {0}; see that it is \
         reachable, and that this account may create tokenreviews"
    )]
    Unavailable(String),
}

/// Tells whose a token is.
#[derive(Debug)]
pub enum TokenReviewer {
    /// By the cluster's keys. A token stays good until it expires, even where its pod has ended.
    Offline(OfflineReviewer),
    /// By the API server (TokenReview).
    Online(OnlineReviewer),
}

impl TokenReviewer {
    /// Whose token it is.
    ///
    /// # Errors
    /// [`ReviewError`].
    pub async fn review(&self, token: &BearerToken) -> Result<AuthenticatedCaller, ReviewError> {
        match self {
            Self::Offline(reviewer) => Ok(reviewer.review(token, SystemTime::now())?),
            Self::Online(reviewer) => reviewer.review(token).await,
        }
    }
}

/// The longest token, in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// A token as it came. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct BearerToken(String);

impl BearerToken {
    /// The token of a call's headers (RFC 6750, section 2.1). As in istiod, the scheme is spelt
    /// `Bearer`.
    ///
    /// # Errors
    /// [`CallerError`] where there is none, more than one, or something else.
    pub fn of(headers: &HeaderMap) -> Result<Self, CallerError> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = values.next().ok_or(CallerError::NoToken)?;
        if values.next().is_some() {
            return Err(CallerError::SeveralTokens);
        }
        let text = value.to_str().map_err(|_| CallerError::NotBearer)?;
        let token = text.strip_prefix("Bearer ");
        match token {
            Some(token) if is_token(token) => Ok(Self(token.to_owned())),
            _ => Err(CallerError::NotBearer),
        }
    }

    /// The token, for those who check it.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(..)")
    }
}

/// Characters of a JWT in compact serialisation (RFC 7515, section 7.1).
fn is_token(text: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !text.is_empty() && text.len() <= MAX_TOKEN && text.bytes().all(valid)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(values: &[&[u8]]) -> Result<BearerToken, CallerError> {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value).expect("a value");
            headers.append(AUTHORIZATION, value);
        }
        BearerToken::of(&headers)
    }

    #[test]
    fn one_token_is_taken_and_never_printed() {
        let token = of(&[b"Bearer a.b-_.c"]).expect("a token");
        assert_eq!(token.expose(), "a.b-_.c");
        assert!(!format!("{token:?}").contains("a.b"));
        let longest = format!("Bearer {}", "a".repeat(MAX_TOKEN));
        assert!(of(&[longest.as_bytes()]).is_ok());
    }

    #[test]
    fn other_schemes_several_tokens_and_huge_ones_are_refused() {
        assert_eq!(of(&[]), Err(CallerError::NoToken));
        let twice: &[&[u8]] = &[b"Bearer a.b.c", b"Bearer a.b.c"];
        assert_eq!(of(twice), Err(CallerError::SeveralTokens));
        let huge = format!("Bearer {}", "a".repeat(MAX_TOKEN + 1));
        for value in [
            &b""[..],
            b"a.b.c",
            b"Bearer",
            b"Bearer ",
            b"Bearer  a.b.c",
            b"Bearer a.b.c ,",
            b"Bearer a.b.c, Bearer d.e.f",
            b"bearer a.b.c",
            b"BEARER a.b.c",
            b"Basic YTpi",
            b"Token a.b.c",
            b"Bearer a.b.\xff",
            b"Bearer a.b.c==",
            huge.as_bytes(),
        ] {
            assert_eq!(of(&[value]), Err(CallerError::NotBearer));
        }
    }
}
