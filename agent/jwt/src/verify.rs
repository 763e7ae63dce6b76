//! One token against what it has to be.

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
