//! Who asks: the pod that a service-account token is bound to.

mod bearer;
mod claims;
mod jwks_file;
mod offline;
mod online;
mod reviews;

use std::sync::Arc;
use std::time::SystemTime;

use super::account::ServiceAccount;
use ambit_jwt::Unauthenticated;
use ambit_model::ObjectName;

pub use bearer::BearerToken;
pub use jwks_file::{JwksFile, JwksFileError};
pub use offline::OfflineReviewer;
pub use online::OnlineReviewer;

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
        bearer::MAX_TOKEN
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
