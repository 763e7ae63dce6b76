//! Tokens by the cluster's keys, without asking anybody.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use super::{AuthenticatedCaller, BearerToken, CallerError, claims};
use ambit_jwt::{ExpectedToken, KeySet, Unauthenticated, verify_bearer};

/// As much of a foreign issuer as is repeated, in characters.
const MAX_ISSUER: usize = 128;

/// Verifies tokens by the cluster's keys. Clocks may differ by a minute.
#[derive(Debug)]
pub struct OfflineReviewer {
    expected: ExpectedToken,
    keys: Arc<ArcSwap<KeySet>>,
}

impl OfflineReviewer {
    /// A reviewer that has the keys as they are at the time.
    pub fn new(expected: ExpectedToken, keys: Arc<ArcSwap<KeySet>>) -> Self {
        Self { expected, keys }
    }

    /// Whose token it is.
    ///
    /// # Errors
    /// [`CallerError`].
    pub fn review(
        &self,
        token: &BearerToken,
        now: SystemTime,
    ) -> Result<AuthenticatedCaller, CallerError> {
        let verified = verify_bearer(token.expose(), &self.expected, &self.keys.load(), now);
        let verified = verified.map_err(|error| match error {
            Unauthenticated::UnknownIssuer { issuer } => CallerError::OtherIssuer {
                issuer: issuer.chars().take(MAX_ISSUER).collect(),
            },
            other => CallerError::Token(other),
        })?;
        claims::caller(&verified)
    }
}
