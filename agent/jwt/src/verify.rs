//! Checks one token: its claims, its signature, and both for a token of one known issuer.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::budget::VerificationBudget;
use super::key_set::{KeySet, NotSigned};
use super::unauthenticated::Unauthenticated;
use super::unverified::{Unverified, UnverifiedClaims};
use ambit_policy::{JwtRule, VerifiedToken};

/// How far the clocks of issuer and node may differ: Envoy's default.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Checks the times of claims, and that they are for one of the audiences (if there are any). The caller
/// has checked the issuer. Audiences are compared literally: unlike in Envoy, a scheme and a trailing
/// slash count.
pub(super) fn check_claims(
    audiences: &[String],
    claims: &UnverifiedClaims,
    now: SystemTime,
) -> Result<(), Unauthenticated> {
    let issuer = || claims.issuer.clone();
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let skew = CLOCK_SKEW.as_secs();
    if claims
        .not_before
        .is_some_and(|start| now.saturating_add(skew) < start)
    {
        return Err(Unauthenticated::NotYetValid { issuer: issuer() });
    }
    if claims
        .expires
        .is_some_and(|end| now > end.saturating_add(skew))
    {
        return Err(Unauthenticated::Expired { issuer: issuer() });
    }
    let is_named = |audience: &String| claims.audiences.contains(audience);
    if !audiences.is_empty() && !audiences.iter().any(is_named) {
        return Err(Unauthenticated::OtherAudience { issuer: issuer() });
    }
    Ok(())
}

/// Checks that one of the issuer's keys made the signature. `None`: there are no keys, so the token is
/// refused.
pub(super) fn check_signature(
    token: &Unverified<'_>,
    keys: Option<&KeySet>,
    budget: &mut VerificationBudget,
) -> Result<(), Unauthenticated> {
    let issuer = || token.claims.issuer.clone();
    let Some(keys) = keys else {
        return Err(Unauthenticated::NoKeys { issuer: issuer() });
    };
    keys.verify(&token.header, token.signed, &token.signature, budget)
        .map_err(|error| match error {
            NotSigned::NoKey => Unauthenticated::UnknownKey { issuer: issuer() },
            NotSigned::Mismatch => Unauthenticated::BadSignature { issuer: issuer() },
            NotSigned::TooCostly => Unauthenticated::TooCostly { issuer: issuer() },
        })
}

/// The verified token as policies see it.
pub(super) fn policy_token(rule: &JwtRule, claims: UnverifiedClaims) -> Arc<VerifiedToken> {
    let mut all = claims.all;
    for name in &rule.space_delimited_claims {
        split(&mut all, name);
    }
    Arc::new(VerifiedToken {
        issuer: claims.issuer,
        subject: claims.subject,
        claims: all,
    })
}

/// Splits a claim that is a string at its spaces.
fn split(claims: &mut Map<String, Value>, name: &str) {
    if let Some(value) = claims.get_mut(name)
        && let Some(text) = value.as_str()
    {
        *value = text.split(' ').filter(|part| !part.is_empty()).collect();
    }
}

/// What a token has to be, besides signed and currently valid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExpectedToken {
    /// `iss`.
    pub issuer: String,
    /// The audience that `aud` has to include.
    pub audience: String,
}

/// The claims of a token whose signature was verified.
#[derive(Clone, PartialEq, Debug)]
pub struct VerifiedClaims {
    /// `sub`; empty if it is absent.
    pub subject: String,
    /// `exp`, in seconds since 1970.
    pub expires: Option<u64>,
    /// All claims.
    pub all: Map<String, Value>,
}

/// Verifies a token: signature, issuer, audience and times. A token without `exp` is accepted; the
/// caller decides whether it accepts tokens that do not expire.
///
/// # Errors
/// [`Unauthenticated`]. It contains no part of the token except its issuer.
pub fn verify_bearer(
    token: &str,
    expected: &ExpectedToken,
    keys: &KeySet,
    now: SystemTime,
) -> Result<VerifiedClaims, Unauthenticated> {
    let token = Unverified::parse(token)?;
    if token.claims.issuer != expected.issuer {
        let issuer = token.claims.issuer;
        return Err(Unauthenticated::UnknownIssuer { issuer });
    }
    let audiences = std::slice::from_ref(&expected.audience);
    check_claims(audiences, &token.claims, now)?;
    check_signature(&token, Some(keys), &mut VerificationBudget::of_request())?;
    Ok(VerifiedClaims {
        subject: token.claims.subject,
        expires: token.claims.expires,
        all: token.claims.all,
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::json;

    use super::*;
    use crate::testing::TestIssuer;
    use ambit_policy::Jwks;

    const NOW: u64 = 1_800_000_000;

    fn judge(claims: &Value, by: &TestIssuer) -> Result<VerifiedClaims, Unauthenticated> {
        let issuer = TestIssuer::rsa();
        let keys = Jwks::parse(issuer.jwks().to_string().as_bytes()).expect("usable");
        let expected = ExpectedToken {
            issuer: "i".to_owned(),
            audience: "a".to_owned(),
        };
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        verify_bearer(&by.token(claims), &expected, &KeySet::new(&keys), now)
    }

    #[test]
    fn everything_has_to_fit() {
        let ours = TestIssuer::rsa();
        let claims = json!({"iss": "i", "aud": ["b", "a"], "sub": "s", "exp": NOW + 1});
        let verified = judge(&claims, ours).expect("accepted");
        assert_eq!(verified.subject, "s");
        assert_eq!(verified.expires, Some(NOW + 1));
        assert_eq!(verified.all["aud"], json!(["b", "a"]));
        let issuer = || "i".to_owned();
        for (field, value, error) in [
            (
                "iss",
                json!("j"),
                Unauthenticated::UnknownIssuer {
                    issuer: "j".to_owned(),
                },
            ),
            (
                "aud",
                json!("b"),
                Unauthenticated::OtherAudience { issuer: issuer() },
            ),
            (
                "aud",
                json!([]),
                Unauthenticated::OtherAudience { issuer: issuer() },
            ),
            (
                "exp",
                json!(NOW - 61),
                Unauthenticated::Expired { issuer: issuer() },
            ),
            (
                "nbf",
                json!(NOW + 61),
                Unauthenticated::NotYetValid { issuer: issuer() },
            ),
        ] {
            let mut claims = claims.clone();
            claims[field] = value;
            assert_eq!(judge(&claims, ours), Err(error), "{claims}");
        }
        let forged = judge(&claims, &TestIssuer::new_rsa());
        assert_eq!(
            forged,
            Err(Unauthenticated::BadSignature { issuer: issuer() })
        );
    }
}
