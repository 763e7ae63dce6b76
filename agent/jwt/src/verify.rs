//! Checks one token: its claims, its signature, and both for a token of one known issuer.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::budget::VerificationBudget;
use super::key_set::{KeySet, NotSigned};
use super::unauthenticated::Unauthenticated;
use super::unverified::{Unverified, UnverifiedClaims};
use ambit_policy::{JwtRule, VerifiedToken};

/// By how much the clocks of issuer and node may differ: Envoy's default.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Whether the claims of the right issuer are in force, and for one of these audiences; for any
/// where there are none. Audiences are compared as they are written: no scheme and no trailing
/// slash is passed over, as Envoy would.
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

/// Whether the signature is of one of the issuer's keys. Without keys it is not.
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

/// What policy sees of a verified token.
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

/// Makes a list of a text that is one.
fn split(claims: &mut Map<String, Value>, name: &str) {
    if let Some(value) = claims.get_mut(name)
        && let Some(text) = value.as_str()
    {
        *value = text.split(' ').filter(|part| !part.is_empty()).collect();
    }
}

/// What a token has to be, besides signed and in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExpectedToken {
    /// `iss`.
    pub issuer: String,
    /// One of `aud`.
    pub audience: String,
}

/// Claims that a key of the issuer has signed.
#[derive(Clone, PartialEq, Debug)]
pub struct VerifiedClaims {
    /// `sub`; empty where it is absent.
    pub subject: String,
    /// `exp`, in seconds since 1970.
    pub expires: Option<u64>,
    /// All of them.
    pub all: Map<String, Value>,
}

/// Verifies a token: signature, issuer, audience and times. One without `exp` does not expire, and
/// is accepted: whether that will do is the caller's business.
///
/// # Errors
/// [`Unauthenticated`], which has no part of the token but its issuer.
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
