//! Authentication: which pod a caller's service account token is bound to.

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

/// The longest token, in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// An authenticated caller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthenticatedCaller {
    /// The pod's service account.
    pub account: ServiceAccount,
    /// The pod that its token is bound to.
    pub pod: BoundPod,
    /// The node that its token names, if it names one.
    pub node: Option<Arc<str>>,
}

/// The pod that a token is bound to. Kubernetes accepts the token only while the pod exists.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct BoundPod {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.uid`, which differs from that of a successor with the same name.
    pub uid: Arc<str>,
}

/// Why a caller is not authenticated. Of its token this contains the issuer and the account only.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallerError {
    /// There is no `authorization` header.
    #[error("the call has no authorization; send `Bearer` and the service account's token")]
    NoToken,
    /// There are several `authorization` headers. Another reader might take a different one.
    #[error("the call has several authorizations; send one")]
    SeveralTokens,
    /// The header is not `Bearer` and a token.
    #[error(
        "the call's authorization is not `Bearer` and a service account's token of at most {} bytes",
        MAX_TOKEN
    )]
    NotBearer,
    /// The token does not verify.
    #[error("the caller's token is not accepted: {0}")]
    Token(Unauthenticated),
    /// The token is from another issuer.
    #[error(
        "the caller's token is from the issuer {issuer:?}, which is not this cluster's; compare it \
         with --issuer"
    )]
    OtherIssuer {
        /// `iss`.
        issuer: String,
    },
    /// The token has no `exp`.
    #[error("the caller's token does not expire; use a projected service-account token")]
    NoExpiry,
    /// The token's subject is not a service account.
    #[error("the caller's token is not of a service account")]
    NotAnAccount,
    /// The claim `kubernetes.io` is missing, malformed, or contradicts `sub`.
    #[error(
        "what the token of {account} says of its pod is missing or contradicts itself; use a \
         projected service-account token"
    )]
    Claims {
        /// The token's account.
        account: ServiceAccount,
    },
    /// The token is not bound to a pod, so it can be used anywhere.
    #[error("the token of {account} is bound to no pod; use a projected service-account token")]
    Unbound {
        /// The token's account.
        account: ServiceAccount,
    },
    /// The API server does not accept the token.
    #[error("the API server does not accept the caller's token for the audience {audience:?}")]
    NotAccepted {
        /// The audience that tokens must be for.
        audience: String,
    },
}

/// Why a token was not accepted, or could not be checked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReviewError {
    /// The caller is not authenticated.
    #[error(transparent)]
    Caller(#[from] CallerError),
    /// The API server could not be asked.
    #[error(
        "the caller's token could not be checked with the API server: {0}; see that it is \
         reachable, and that this account may create tokenreviews"
    )]
    Unavailable(String),
}

/// Authenticates callers by their tokens.
#[derive(Debug)]
pub enum TokenReviewer {
    /// With the cluster's keys. A token stays valid until it expires, even after its pod has ended.
    Offline(OfflineReviewer),
    /// With the API server (TokenReview).
    Online(OnlineReviewer),
}

impl TokenReviewer {
    /// Authenticates the bearer of a token.
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

/// A token as received. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct BearerToken(String);

impl BearerToken {
    /// The token of a call (RFC 6750, section 2.1). As in istiod, the scheme must be spelt `Bearer`.
    ///
    /// # Errors
    /// [`CallerError`] unless there is exactly one `Bearer` token.
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

    /// The token, for checking it only.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(..)")
    }
}

/// Whether a text consists of the characters of a compact JWT (RFC 7515, section 7.1).
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
    fn a_token_is_read_and_never_printed() {
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
