//! Tokens by the cluster's keys, without asking anybody.

use std::time::SystemTime;

use super::{AuthenticatedCaller, BearerToken, CallerError, JwksFile, claims};
use ambit_jwt::{ExpectedToken, Unauthenticated, verify_bearer};

/// As much of a foreign issuer as is repeated, in characters.
const MAX_ISSUER: usize = 128;

/// Verifies tokens by the cluster's keys. Clocks may differ by a minute.
#[derive(Debug)]
pub struct OfflineReviewer {
    expected: ExpectedToken,
    keys: JwksFile,
}

impl OfflineReviewer {
    /// A reviewer of tokens that are as `expected` and are signed by a key of the file.
    pub fn new(expected: ExpectedToken, keys: JwksFile) -> Self {
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
        let verified = verify_bearer(
            token.expose(),
            &self.expected,
            &self.keys.keys().load(),
            now,
        );
        let verified = verified.map_err(|error| match error {
            Unauthenticated::UnknownIssuer { issuer } => CallerError::OtherIssuer {
                issuer: issuer.chars().take(MAX_ISSUER).collect(),
            },
            other => CallerError::Token(other),
        })?;
        claims::caller(&verified)
    }
}
