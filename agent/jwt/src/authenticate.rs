//! All tokens of a request against all rules of a workload.

use std::time::SystemTime;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::{HeaderMap, Method};

use super::budget::VerificationBudget;
use super::cache::KeyCache;
use super::effects::{Accepted, VerifiedTokens};
use super::extract::{Found, extract};
use super::unauthenticated::Unauthenticated;
use super::unverified::Unverified;
use super::verify::{check_claims, check_signature, policy_token};
use ambit_policy::{JwtRule, TokenPresence};

/// The head of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestToAuthenticate<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query, as they came.
    pub target: &'a str,
    /// The headers, without pseudo-headers.
    pub headers: &'a HeaderMap,
}

impl RequestToAuthenticate<'_> {
    /// Whether a browser asks what it may send (the Fetch standard's CORS-preflight): it does not
    /// send a token along then.
    pub(super) fn is_preflight(&self) -> bool {
        let has = |name| {
            self.headers
                .get(name)
                .is_some_and(|value| !value.is_empty())
        };
        self.method == Method::OPTIONS && has(ORIGIN) && has(ACCESS_CONTROL_REQUEST_METHOD)
    }
}

/// Verifies the tokens of a request. `None`: it carries none and needs none, or is a CORS
/// preflight, which a browser sends without.
///
/// Every token has to be one that some rule accepts at the place where it was. Of several different
/// ones, policy sees that of the first rule, and of its first location; Istio leaves that open. A
/// rule whose presence is required has to accept one of them.
///
/// Waits only where an issuer's keys are being fetched, and no longer than its rule's timeout.
///
/// # Errors
/// A token is not accepted, or one that is required is missing: the request has to be answered, not
/// passed on.
pub async fn authenticate(
    rules: &[JwtRule],
    request: &RequestToAuthenticate<'_>,
    keys: &KeyCache,
    now: SystemTime,
) -> Result<Option<VerifiedTokens>, Unauthenticated> {
    if request.is_preflight() {
        return Ok(None);
    }
    let found = extract(rules, request)?;
    // What needs no keys comes first: a request that fails anyhow causes no fetch.
    let candidates = found.iter().map(|found| Candidate::new(found, now));
    let candidates = candidates.collect::<Result<Vec<_>, _>>()?;
    let mut budget = VerificationBudget::of_request();
    require(rules, &candidates, keys, &mut budget).await?;
    let mut accepted = Vec::new();
    for candidate in candidates {
        accepted.push(candidate.verify(keys, &mut budget).await?);
    }
    Ok(VerifiedTokens::new(accepted))
}

/// Ensures that every rule that requires a token accepts one.
async fn require(
    rules: &[JwtRule],
    candidates: &[Candidate<'_>],
    keys: &KeyCache,
    budget: &mut VerificationBudget,
) -> Result<(), Unauthenticated> {
    for rule in rules {
        match rule.presence {
            TokenPresence::Optional => {}
            TokenPresence::Required => accepted_by(rule, candidates, keys, budget).await?,
        }
    }
    Ok(())
}

/// Whether a rule accepts one of the tokens; if not, the reason why it does not accept the first
/// that its claims are for.
async fn accepted_by(
    rule: &JwtRule,
    candidates: &[Candidate<'_>],
    keys: &KeyCache,
    budget: &mut VerificationBudget,
) -> Result<(), Unauthenticated> {
    let mut error = None;
    for candidate in candidates.iter().filter(|one| one.is_for(rule)) {
        match candidate.check(rule, keys, budget).await {
            Ok(()) => return Ok(()),
            Err(failure @ Unauthenticated::TooCostly { .. }) => return Err(failure),
            Err(failure) => error = error.or(Some(failure)),
        }
    }
    Err(error.unwrap_or(Unauthenticated::Missing))
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
            if !is_issuer(rule, &token) {
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

    /// Whether its claims satisfy a rule, by the identity of the rule: there may be two equal ones.
    fn is_for(&self, rule: &JwtRule) -> bool {
        self.rules.iter().any(|&known| std::ptr::eq(known, rule))
    }

    /// Whether the keys of a rule signed it.
    async fn check(
        &self,
        rule: &JwtRule,
        keys: &KeyCache,
        budget: &mut VerificationBudget,
    ) -> Result<(), Unauthenticated> {
        let set = keys
            .keys_for(&rule.keys, &self.token.header, rule.timeout)
            .await;
        check_signature(&self.token, set.as_deref(), budget)
    }

    /// The first rule whose keys signed it accepts it; where none did, the first one's reason
    /// counts.
    async fn verify(
        self,
        keys: &KeyCache,
        budget: &mut VerificationBudget,
    ) -> Result<Accepted, Unauthenticated> {
        let mut error = None;
        for &rule in &self.rules {
            match self.check(rule, keys, budget).await {
                Ok(()) => return Ok(self.accepted(rule)),
                Err(failure @ Unauthenticated::TooCostly { .. }) => return Err(failure),
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

/// Whether a token is of a rule's issuer. A rule without one takes any.
fn is_issuer(rule: &JwtRule, token: &Unverified<'_>) -> bool {
    let issuer = rule.issuer.as_ref();
    issuer.is_none_or(|issuer| *issuer == token.claims.issuer)
}

fn unknown_issuer(token: &Unverified<'_>) -> Unauthenticated {
    let issuer = token.claims.issuer.clone();
    Unauthenticated::UnknownIssuer { issuer }
}
