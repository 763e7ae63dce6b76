//! Rules that Istio accepts although they are incomplete, and rules that require a token. Beside each
//! request that passes there is one that does not.

use super::*;
use crate::testing::TestIssuer;
use ambit_policy::{Jwks, KeySource, TokenLocation, TokenPresence};

fn header(name: &'static str) -> Vec<TokenLocation> {
    vec![TokenLocation::Header {
        name: HeaderName::from_static(name),
        prefix: String::new(),
    }]
}

#[test]
fn a_rule_without_an_issuer_takes_any_issuer_but_no_other_key() {
    let (key, stranger) = (TestIssuer::ed25519(), TestIssuer::ed25519());
    let mut rule = key.rule(ISSUER);
    rule.issuer = None;
    let rules = [rule];
    for issuer in [ISSUER, "anyone", ""] {
        let claims = with(claims(), "iss", issuer);
        let verified = Sent::bearing(&key.token(&claims)).accepted_by(&rules);
        assert_eq!(verified.token().issuer, issuer);
        let error = Sent::bearing(&stranger.token(&claims)).refused_by(&rules);
        assert_eq!(error.status().as_u16(), 401, "{error}");
    }
    let mut without = claims();
    without.as_object_mut().expect("an object").remove("iss");
    assert!(
        Sent::bearing(&key.token(&without))
            .judged_by(&rules)
            .is_ok()
    );
    let expired = key.token(&with(claims(), "exp", 1));
    assert_eq!(
        Sent::bearing(&expired).refused_by(&rules).status().as_u16(),
        401
    );
}

#[test]
fn without_keys_tokens_are_refused_and_other_requests_pass() {
    let key = TestIssuer::ed25519();
    let mut rule = key.rule(ISSUER);
    rule.keys = KeySource::Inline(Arc::new(Jwks::none()));
    let rules = [rule];
    assert!(Sent::get("/").judged_by(&rules).expect("passes").is_none());
    let error = Sent::bearing(&key.token(&claims())).refused_by(&rules);
    assert_eq!(error, Unauthenticated::UnknownKey { issuer: issuer() });
    assert_eq!(error.status().as_u16(), 401);
}

#[test]
fn a_rule_that_looks_nowhere_finds_nothing() {
    let key = TestIssuer::ed25519();
    let mut rule = key.rule(ISSUER);
    rule.locations.clear();
    let judged = Sent::bearing(&key.token(&claims())).judged_by(&[rule]);
    assert!(judged.expect("passes").is_none(), "policy sees no token");
}

#[test]
fn a_token_for_another_audience_is_forbidden() {
    let key = TestIssuer::ed25519();
    let mut rule = key.rule(ISSUER);
    rule.audiences = vec!["a".to_owned()];
    let rules = [rule];
    let right = key.token(&with(claims(), "aud", "a"));
    assert!(Sent::bearing(&right).judged_by(&rules).is_ok());
    let wrong = Sent::bearing(&key.token(&with(claims(), "aud", "b"))).refused_by(&rules);
    assert_eq!(
        (wrong.status().as_u16(), wrong.body()),
        (403, "Audiences in Jwt are not allowed")
    );
    let late = with(with(claims(), "aud", "b"), "exp", 1);
    let late = Sent::bearing(&key.token(&late)).refused_by(&rules);
    assert_eq!(late.status().as_u16(), 401, "expired comes first");
}

#[test]
fn a_required_token_has_to_be_there_and_valid() {
    let (key, stranger) = (TestIssuer::ed25519(), TestIssuer::ed25519());
    let mut rule = key.rule(ISSUER);
    rule.presence = TokenPresence::Required;
    let rules = [rule];
    let missing = Sent::get("/").refused_by(&rules);
    assert_eq!(missing, Unauthenticated::Missing);
    assert_eq!(
        (missing.status().as_u16(), missing.body()),
        (401, "Jwt is missing")
    );
    assert!(
        Sent::bearing(&key.token(&claims()))
            .judged_by(&rules)
            .is_ok()
    );
    let forged = Sent::bearing(&stranger.token(&claims())).refused_by(&rules);
    assert_eq!(forged, Unauthenticated::BadSignature { issuer: issuer() });
    let mut preflight = Sent::get("/")
        .with("origin", "https://a")
        .with("access-control-request-method", "GET");
    preflight.method = Method::OPTIONS;
    assert!(preflight.judged_by(&rules).is_ok());
}

#[test]
fn each_required_rule_needs_a_token_of_its_own() {
    let (one, two) = (TestIssuer::ed25519(), TestIssuer::ed25519());
    let mut rules = [one.rule("one"), two.rule("two")];
    rules[1].locations = header("x-scope");
    let first = one.token(&with(claims(), "iss", "one"));
    let second = two.token(&with(claims(), "iss", "two"));
    let both = || Sent::bearing(&first).with("x-scope", &second);
    let only_second = || Sent::get("/").with("x-scope", &second);
    assert!(only_second().judged_by(&rules).is_ok(), "both are optional");
    rules[0].presence = TokenPresence::Required;
    assert_eq!(only_second().refused_by(&rules), Unauthenticated::Missing);
    assert!(Sent::bearing(&first).judged_by(&rules).is_ok());
    rules[1].presence = TokenPresence::Required;
    assert_eq!(
        Sent::bearing(&first).refused_by(&rules),
        Unauthenticated::Missing
    );
    assert!(both().judged_by(&rules).is_ok());
    // One token cannot be of two issuers.
    rules[1].locations = TokenLocation::defaults();
    assert_eq!(
        Sent::bearing(&first).refused_by(&rules),
        Unauthenticated::Missing
    );
}

#[test]
fn two_rules_that_require_the_same_token_are_satisfied_by_it() {
    let key = TestIssuer::ed25519();
    let mut rules = [key.rule(ISSUER), key.rule(ISSUER)];
    for rule in &mut rules {
        rule.presence = TokenPresence::Required;
    }
    let token = key.token(&claims());
    assert!(Sent::bearing(&token).judged_by(&rules).is_ok());
    let other = TestIssuer::ed25519();
    rules[1] = other.rule(ISSUER);
    rules[1].presence = TokenPresence::Required;
    let error = Sent::bearing(&token).refused_by(&rules);
    assert_eq!(error, Unauthenticated::BadSignature { issuer: issuer() });
}
