//! Verifies all tokens of a request by all rules of a workload.

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

/// The parts of a request that its authentication depends on.
#[derive(Clone, Copy, Debug)]
pub struct RequestToAuthenticate<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query, as received.
    pub target: &'a str,
    /// The headers, without pseudo-headers.
    pub headers: &'a HeaderMap,
}

impl RequestToAuthenticate<'_> {
    /// Whether this is a CORS preflight (Fetch standard), with which a browser sends no token.
    pub(super) fn is_preflight(&self) -> bool {
        let has = |name| {
            self.headers
                .get(name)
                .is_some_and(|value| !value.is_empty())
        };
        self.method == Method::OPTIONS && has(ORIGIN) && has(ACCESS_CONTROL_REQUEST_METHOD)
    }
}

/// Verifies the tokens of a request. Returns `None` if it carries none and needs none, or if it is a
/// CORS preflight, which a browser sends without a token.
///
/// Every token has to be accepted by a rule that looks at the place where it was. If there are several
/// different tokens, policies see the one of the first rule and of its first location; Istio does not
/// define this. A rule that requires a token has to accept one of them.
///
/// Waits only while an issuer's keys are being fetched, and at most for the rule's timeout.
///
/// # Errors
/// [`Unauthenticated`] if a token is not accepted, or a required one is missing. The request must not be
/// passed on then.
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
    // Checks that need no keys come first, so that a request that fails them causes no fetch.
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

/// Ensures that each rule that requires a token accepts one.
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

/// Ensures that a rule accepts one of the tokens. The error is that of the first token whose claims
/// satisfy the rule.
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

/// A token whose claims satisfy at least one rule.
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

    /// Whether its claims satisfy this very rule. There may be two equal rules.
    fn is_for(&self, rule: &JwtRule) -> bool {
        self.rules.iter().any(|&known| std::ptr::eq(known, rule))
    }

    /// Checks its signature with the keys of a rule.
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

    /// Accepts the token by the first rule whose keys verify it. If none does, the error is that of the
    /// first rule.
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

/// Whether a token is of a rule's issuer. A rule without an issuer accepts any.
fn is_issuer(rule: &JwtRule, token: &Unverified<'_>) -> bool {
    let issuer = rule.issuer.as_ref();
    issuer.is_none_or(|issuer| *issuer == token.claims.issuer)
}

fn unknown_issuer(token: &Unverified<'_>) -> Unauthenticated {
    let issuer = token.claims.issuer.clone();
    Unauthenticated::UnknownIssuer { issuer }
}
