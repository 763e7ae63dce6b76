//! All tokens of a request against all rules of a workload.

use std::time::SystemTime;

use super::cache::KeyCache;
use super::effects::{Accepted, Verified};
use super::extract::{Found, extract};
use super::head::RequestHead;
use super::unauthenticated::Unauthenticated;
use super::unverified::Unverified;
use super::verify::{check_claims, check_signature, policy_token};
use crate::policy::JwtRule;

/// Verifies the tokens of a request. `None`: it carries none, or is a CORS preflight, which a
/// browser sends without.
///
/// Every token has to be one that some rule accepts at the place where it was. Of several different
/// ones, policy sees that of the first rule, and of its first location; Istio leaves that open.
///
/// Waits only where an issuer's keys are being fetched, and no longer than its rule's timeout.
///
/// # Errors
/// A token is not accepted: the request has to be answered, not passed on.
pub async fn authenticate(
    rules: &[JwtRule],
    request: &RequestHead<'_>,
    keys: &KeyCache,
    now: SystemTime,
) -> Result<Option<Verified>, Unauthenticated> {
    if request.is_preflight() {
        return Ok(None);
    }
    let found = extract(rules, request)?;
    // What needs no keys comes first: a request that fails anyhow causes no fetch.
    let candidates = found.iter().map(|found| Candidate::new(found, now));
    let candidates = candidates.collect::<Result<Vec<_>, _>>()?;
    let mut accepted = Vec::new();
    for candidate in candidates {
        accepted.push(candidate.verify(keys).await?);
    }
    Ok(Verified::new(accepted))
}

/// A token whose claims satisfy some rules.
struct Candidate<'a> {
    found: &'a Found<'a>,
    token: Unverified<'a>,
    /// At least one.
    rules: Vec<&'a JwtRule>,
}

impl<'a> Candidate<'a> {
    fn new(found: &'a Found<'a>, now: SystemTime) -> Result<Self, Unauthenticated> {
        let token = Unverified::parse(&found.text)?;
        let mut error = None;
        let mut rules = Vec::new();
        for &rule in &found.rules {
            if rule.issuer != token.claims.issuer {
                continue;
            }
            match check_claims(&rule.audiences, &token.claims, now) {
                Ok(()) => rules.push(rule),
                Err(failure) => error = error.or(Some(failure)),
            }
        }
        match error {
            _ if !rules.is_empty() => Ok(Self {
                found,
                token,
                rules,
            }),
            Some(error) => Err(error),
            None => Err(unknown_issuer(&token)),
        }
    }

    /// The first rule whose keys signed it accepts it; where none did, the first one's reason
    /// counts.
    async fn verify(self, keys: &KeyCache) -> Result<Accepted, Unauthenticated> {
        let mut error = None;
        for &rule in &self.rules {
            let set = keys
                .keys_for(&rule.keys, &self.token.header, rule.timeout)
                .await;
            match check_signature(&self.token, set.as_deref()) {
                Ok(()) => return Ok(self.accepted(rule)),
                Err(failure) => error = error.or(Some(failure)),
            }
        }
        Err(error.unwrap_or_else(|| unknown_issuer(&self.token)))
    }

    fn accepted(self, rule: &JwtRule) -> Accepted {
        let outputs = Accepted::outputs(rule, self.token.payload, &self.token.claims.all);
        let places = if rule.forwards_original {
            Vec::new()
        } else {
            self.found.places.iter().copied().cloned().collect()
        };
        Accepted {
            outputs,
            stripped: (self.found.text.clone().into_owned(), places),
            token: policy_token(rule, self.token.claims),
        }
    }
}

fn unknown_issuer(token: &Unverified<'_>) -> Unauthenticated {
    let issuer = token.claims.issuer.clone();
    Unauthenticated::UnknownIssuer { issuer }
}
