//! The attack cases J-1 to J-12 that this crate decides, and others like them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;

use super::*;
use crate::testing::{TestIssuer, rule, rule_with_keys, unsigned};
use ambit_policy::TokenLocation;

#[test]
fn j_1_no_token_passes_and_a_wrong_one_does_not() {
    let key = TestIssuer::ed25519();
    let rules = [key.rule(ISSUER)];
    assert!(Sent::get("/").judged_by(&rules).expect("passes").is_none());
    let verified = Sent::bearing(&key.token(&claims())).accepted_by(&rules);
    let token = verified.token();
    assert_eq!(
        (token.issuer.as_str(), token.subject.as_str()),
        (ISSUER, "somebody")
    );
    let expired = key.token(&with(claims(), "exp", NOW - 61));
    let error = Sent::bearing(&expired).refused_by(&rules);
    assert_eq!(error, Unauthenticated::Expired { issuer: issuer() });
    assert_eq!(
        (error.status().as_u16(), error.body()),
        (401, "Jwt is expired")
    );
    for other in [
        "https://other.example",
        "https://issuer.example/",
        "HTTPS://issuer.example",
        "",
    ] {
        let token = key.token(&with(claims(), "iss", other));
        let error = Sent::bearing(&token).refused_by(&rules);
        let issuer = other.to_owned();
        assert_eq!(error, Unauthenticated::UnknownIssuer { issuer });
        assert_eq!(
            (error.status().as_u16(), error.body()),
            (401, "Jwt issuer is not configured")
        );
    }
    let opaque = Sent::bearing("an-opaque-token").refused_by(&rules);
    assert_eq!(opaque, Unauthenticated::Malformed);
}

#[test]
fn without_rules_no_token_is_looked_for() {
    let sent = Sent::bearing("anything");
    assert!(sent.judged_by(&[]).expect("passes").is_none());
}

#[test]
fn clocks_may_differ_by_a_minute() {
    let key = TestIssuer::ed25519();
    let rules = [key.rule(ISSUER)];
    let judge = |name: &str, time: u64| {
        let token = key.token(&with(claims(), name, time));
        Sent::bearing(&token).judged_by(&rules).err()
    };
    assert_eq!(judge("exp", NOW - 60), None);
    assert_eq!(
        judge("exp", NOW - 61),
        Some(Unauthenticated::Expired { issuer: issuer() })
    );
    assert_eq!(judge("nbf", NOW + 60), None);
    assert_eq!(
        judge("nbf", NOW + 61),
        Some(Unauthenticated::NotYetValid { issuer: issuer() })
    );
    assert_eq!(
        judge("exp", 0),
        Some(Unauthenticated::Expired { issuer: issuer() })
    );
    assert_eq!(judge("exp", u64::MAX), None);
    assert_eq!(
        judge("nbf", u64::MAX),
        Some(Unauthenticated::NotYetValid { issuer: issuer() })
    );
}

#[test]
fn j_3_and_j_4_an_absent_subject_is_empty() {
    let key = TestIssuer::ed25519();
    let token = key.token(&json!({"iss": ISSUER}));
    let verified = Sent::bearing(&token).accepted_by(&[key.rule(ISSUER)]);
    assert_eq!(verified.token().subject, "");
}

#[test]
fn j_5_a_valid_token_does_not_cover_for_an_expired_one() {
    let key = TestIssuer::ed25519();
    let mut rule = key.rule(ISSUER);
    rule.locations = ["token", "secondary"]
        .map(|name| TokenLocation::Parameter(name.into()))
        .into();
    let rules = [rule];
    let valid = key.token(&claims());
    let expired = key.token(&with(claims(), "exp", 1));
    for target in [
        format!("/?token={valid}&secondary={expired}"),
        format!("/?token={expired}&secondary={valid}"),
        format!("/?token={valid}&token={expired}"),
    ] {
        let error = Sent::get(&target).refused_by(&rules);
        assert_eq!(error, Unauthenticated::Expired { issuer: issuer() });
    }
    let both = Sent::get(&format!("/?token={valid}&secondary={valid}"));
    both.accepted_by(&rules);
}

#[test]
fn of_several_valid_tokens_policy_sees_that_of_the_first_rule() {
    let (one, two) = (TestIssuer::ed25519(), TestIssuer::ed25519());
    let mut rules = [one.rule("one"), two.rule("two")];
    rules[1].locations = vec![TokenLocation::Parameter("second".into())];
    let first = one.token(&with(claims(), "iss", "one"));
    let second = two.token(&with(claims(), "iss", "two"));
    let sent =
        Sent::get(&format!("/?second={second}")).with("authorization", &format!("Bearer {first}"));
    assert_eq!(sent.accepted_by(&rules).token().issuer, "one");
    rules.reverse();
    assert_eq!(sent.accepted_by(&rules).token().issuer, "two");
}

#[test]
fn j_6_one_of_the_audiences_is_enough_and_none_is_not() {
    let key = TestIssuer::ed25519();
    let mut rule = key.rule(ISSUER);
    rule.audiences = vec!["foo".into(), "bar".into()];
    let rules = [rule];
    let judge = |audience: Value| {
        let token = key.token(&with(claims(), "aud", audience));
        Sent::bearing(&token).judged_by(&rules).err()
    };
    assert_eq!(judge(json!("foo")), None);
    assert_eq!(judge(json!(["buzz", "bar"])), None);
    let refused = Some(Unauthenticated::OtherAudience { issuer: issuer() });
    for audience in [
        json!("buzz"),
        json!([]),
        json!(""),
        json!("FOO"),
        json!("foo/"),
        json!("https://foo"),
        json!("foo bar"),
    ] {
        assert_eq!(judge(audience.clone()), refused, "{audience}");
    }
    let without = Sent::bearing(&key.token(&claims())).judged_by(&rules).err();
    assert_eq!(without, refused);
}

#[test]
fn rules_for_the_same_issuer_are_alternatives() {
    let (key, other) = (TestIssuer::ed25519(), TestIssuer::ed25519());
    let mut strict = key.rule(ISSUER);
    strict.audiences = vec!["foo".into()];
    let token = key.token(&claims());
    let refused = Unauthenticated::OtherAudience { issuer: issuer() };
    let sent = Sent::bearing(&token);
    assert_eq!(sent.refused_by(std::slice::from_ref(&strict)), refused);
    sent.accepted_by(&[strict, other.rule(ISSUER), key.rule(ISSUER)]);
}

#[test]
fn j_7_claims_that_are_lists_in_one_text_become_lists() {
    let key = TestIssuer::ed25519();
    let mut rule = key.rule(ISSUER);
    rule.space_delimited_claims = vec!["roles".into(), "count".into(), "absent".into()];
    let claims = json!({"iss": ISSUER, "scope": "write read", "roles": "a  b ", "count": 5,
        "other": "a b"});
    let verified = Sent::bearing(&key.token(&claims)).accepted_by(&[rule]);
    let claims = &verified.token().claims;
    assert_eq!(claims["roles"], json!(["a", "b"]));
    assert_eq!(claims["other"], json!("a b"));
    assert_eq!(claims["count"], json!(5));
    assert_eq!(claims["scope"], json!("write read"));
}

#[test]
fn j_10_a_preflight_is_skipped_and_what_only_resembles_one_is_not() {
    let key = TestIssuer::ed25519();
    let rules = [key.rule(ISSUER)];
    let expired = key.token(&with(claims(), "exp", 1));
    let preflight = |method: Method, headers: &[(&'static str, &str)]| {
        let sent = Sent {
            method,
            ..Sent::bearing(&expired)
        };
        let add = |sent: Sent, (name, value): &(&'static str, &str)| sent.with(name, value);
        headers.iter().fold(sent, add)
    };
    let (origin, asks) = (
        ("origin", "https://a"),
        ("access-control-request-method", "POST"),
    );
    let genuine = preflight(Method::OPTIONS, &[origin, asks]);
    assert!(genuine.judged_by(&rules).expect("skipped").is_none());
    for malformed in [
        preflight(Method::OPTIONS, &[asks]),
        preflight(Method::OPTIONS, &[origin]),
        preflight(Method::OPTIONS, &[("origin", ""), asks]),
        preflight(
            Method::OPTIONS,
            &[origin, ("access-control-request-method", "")],
        ),
        preflight(Method::GET, &[origin, asks]),
    ] {
        let error = malformed.refused_by(&rules);
        assert_eq!(error, Unauthenticated::Expired { issuer: issuer() });
    }
}

#[test]
fn every_algorithm_verifies_with_its_own_key_only() {
    let rsa = TestIssuer::rsa();
    let ec = ["P-256", "P-384", "P-521"].map(TestIssuer::ec);
    let ed25519 = TestIssuer::ed25519();
    let [p256, p384, p521] = &ec;
    let cases = [
        ("RS256", rsa),
        ("RS384", rsa),
        ("RS512", rsa),
        ("PS256", rsa),
        ("PS384", rsa),
        ("PS512", rsa),
        ("ES256", p256),
        ("ES384", p384),
        ("ES512", p521),
        ("EdDSA", &ed25519),
    ];
    for (algorithm, key) in cases {
        let token = key.token_with_header(&json!({"alg": algorithm}), &claims());
        Sent::bearing(&token).accepted_by(&[key.rule(ISSUER)]);
        for (other, another) in cases {
            let is_same = std::ptr::eq(key, another);
            let error = Sent::bearing(&token)
                .judged_by(&[another.rule(ISSUER)])
                .err();
            let expected = Unauthenticated::UnknownKey { issuer: issuer() };
            assert_eq!(error, (!is_same).then_some(expected), "{algorithm} {other}");
        }
        let unrelated = match key {
            TestIssuer::Rsa(_) => TestIssuer::new_rsa(),
            TestIssuer::Ec(_, curve) => TestIssuer::ec(curve),
            TestIssuer::Ed25519(_) => TestIssuer::ed25519(),
        };
        let error = Sent::bearing(&token).refused_by(&[unrelated.rule(ISSUER)]);
        assert_eq!(error, Unauthenticated::BadSignature { issuer: issuer() });
        assert_eq!(error.body(), "Jwt verification fails");
    }
}

#[test]
fn j_11_public_keys_as_secrets_and_missing_signatures_are_refused() {
    use aws_lc_rs::hmac;
    let rsa = TestIssuer::rsa();
    let rules = [rsa.rule(ISSUER)];
    let modulus = rsa.jwk()["n"].as_str().expect("a modulus").to_owned();
    for secret in [
        modulus.as_bytes(),
        &URL_SAFE_NO_PAD.decode(&modulus).expect("base64"),
        b"",
    ] {
        let signed = unsigned(&json!({"alg": "HS256"}), &claims());
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
        let error = Sent::bearing(&format!("{signed}.{signature}")).refused_by(&rules);
        assert_eq!(error, Unauthenticated::UnsupportedAlgorithm);
    }
    for algorithm in ["none", "None", "NONE", ""] {
        let signed = unsigned(&json!({"alg": algorithm}), &claims());
        let error = Sent::bearing(&format!("{signed}.")).refused_by(&rules);
        assert_eq!(error, Unauthenticated::UnsupportedAlgorithm);
    }
    let signed = unsigned(&json!({"alg": "RS256"}), &claims());
    let error = Sent::bearing(&format!("{signed}.")).refused_by(&rules);
    assert_eq!(error, Unauthenticated::BadSignature { issuer: issuer() });
}

#[test]
fn j_11_the_kid_only_chooses_among_the_issuers_keys() {
    let (key, other) = (TestIssuer::ed25519(), TestIssuer::ed25519());
    let named = |key: &TestIssuer, id: &str| with(key.jwk(), "kid", id);
    let rules = [rule_with_keys(
        ISSUER,
        &json!({"keys": [named(&key, "a"), named(&other, "b")]}),
    )];
    let judge = |header: Value| {
        let header = with(header, "alg", "EdDSA");
        Sent::bearing(&key.token_with_header(&header, &claims()))
            .judged_by(&rules)
            .err()
    };
    assert_eq!(judge(json!({"kid": "a"})), None);
    assert_eq!(judge(json!({})), None);
    assert_eq!(judge(json!({"kid": ""})), None, "as without one");
    let forged = Unauthenticated::BadSignature { issuer: issuer() };
    assert_eq!(judge(json!({"kid": "b"})), Some(forged));
    let unknown = Unauthenticated::UnknownKey { issuer: issuer() };
    for id in ["A", "c", "../../dev/null", "a' OR '1'='1"] {
        assert_eq!(judge(json!({"kid": id})), Some(unknown.clone()), "{id}");
    }
    let forger = TestIssuer::ed25519();
    let header = json!({"alg": "EdDSA", "jwk": forger.jwk(), "jku": "https://forger/", "x5c": []});
    let error = Sent::bearing(&forger.token_with_header(&header, &claims())).refused_by(&rules);
    assert_eq!(error, Unauthenticated::BadSignature { issuer: issuer() });
}

/// RSA keys of a size, with different moduli.
fn rsa_keys(bits: usize, count: u32) -> Vec<Value> {
    let key = |number: u32| {
        let mut modulus = vec![0xc1; bits / 8];
        modulus[1..5].copy_from_slice(&number.to_be_bytes());
        json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB"})
    };
    (0..count).map(key).collect()
}

/// A token with an invalid signature of the length for a key of a size.
fn unsigned_token(bits: usize, id: &str) -> String {
    let signed = unsigned(&json!({"alg": "RS256"}), &with(claims(), "jti", id));
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(vec![1; bits / 8]))
}

#[test]
fn many_and_large_keys_do_not_make_a_request_costly() {
    let keys = json!({"keys": rsa_keys(8192, 128)});
    let rules = [rule_with_keys(ISSUER, &keys)];
    let query: Vec<_> = (0..7)
        .map(|number| format!("access_token={}", unsigned_token(8192, &number.to_string())))
        .collect();
    let sent = Sent::get(&format!("/?{}", query.join("&"))).with(
        "authorization",
        &format!("Bearer {}", unsigned_token(8192, "x")),
    );
    let request = RequestToAuthenticate {
        method: &sent.method,
        target: &sent.target,
        headers: &sent.headers,
    };
    let inline = Inline::new(&rules);
    let (began, repeats) = (std::time::Instant::now(), 20);
    for _ in 0..repeats {
        let judged = authenticate(&rules, &request, &inline.cache, now()).now_or_never();
        let error = judged.expect("keys are there").expect_err("refused");
        assert_eq!(error, Unauthenticated::TooCostly { issuer: issuer() });
        assert_eq!(error.status().as_u16(), 401);
    }
    println!("{:?} a request", began.elapsed() / repeats);
}

#[test]
fn a_token_that_names_its_key_does_not_pay_for_the_others() {
    let key = TestIssuer::rsa();
    let jwks = |named: Value| {
        let mut keys = rsa_keys(2048, 127);
        keys.push(named);
        [rule_with_keys(ISSUER, &json!({ "keys": keys }))]
    };
    let header = json!({"alg": "RS256", "kid": "k"});
    let token = key.token_with_header(&header, &claims());
    let named = jwks(with(key.jwk(), "kid", "k"));
    Sent::bearing(&token).accepted_by(&named);
    let error = Sent::bearing(&token).refused_by(&jwks(key.jwk()));
    assert_eq!(error, Unauthenticated::TooCostly { issuer: issuer() });
}

#[test]
fn keys_that_cannot_have_made_a_signature_cost_nothing() {
    let key = TestIssuer::rsa();
    let mut keys = rsa_keys(8192, 127);
    keys.push(key.jwk());
    let rules = [rule_with_keys(ISSUER, &json!({ "keys": keys }))];
    Sent::bearing(&key.token(&claims())).accepted_by(&rules);
}

#[test]
fn the_keys_alg_binds_the_token() {
    let rsa = TestIssuer::rsa();
    let jwks = json!({"keys": [with(rsa.jwk(), "alg", "PS256")]});
    let rules = [rule_with_keys(ISSUER, &jwks)];
    let token = |algorithm: &str| rsa.token_with_header(&json!({"alg": algorithm}), &claims());
    Sent::bearing(&token("PS256")).accepted_by(&rules);
    let error = Sent::bearing(&token("RS256")).refused_by(&rules);
    assert_eq!(error, Unauthenticated::UnknownKey { issuer: issuer() });
}

#[test]
fn a_point_that_is_not_on_its_curve_verifies_nothing() {
    let key = TestIssuer::ec("P-256");
    let zero = URL_SAFE_NO_PAD.encode([0; 32]);
    let jwk = with(with(key.jwk(), "x", zero.clone()), "y", zero);
    let rules = [rule_with_keys(ISSUER, &json!({"keys": [jwk]}))];
    let error = Sent::bearing(&key.token(&claims())).refused_by(&rules);
    assert_eq!(error, Unauthenticated::UnknownKey { issuer: issuer() });
}

#[test]
fn one_issuers_key_does_not_speak_for_another() {
    let (one, two) = (TestIssuer::ed25519(), TestIssuer::ed25519());
    let rules = [one.rule("one"), two.rule("two")];
    let token = one.token(&with(claims(), "iss", "two"));
    let error = Sent::bearing(&token).refused_by(&rules);
    assert_eq!(
        error,
        Unauthenticated::BadSignature {
            issuer: "two".into()
        }
    );
}

#[test]
fn a_token_counts_only_where_its_own_rule_looks() {
    let (one, two) = (TestIssuer::ed25519(), TestIssuer::ed25519());
    let mut rules = [one.rule("one"), two.rule("two")];
    rules[1].locations = vec![TokenLocation::Parameter("second".into())];
    let token = two.token(&with(claims(), "iss", "two"));
    Sent::get(&format!("/?second={token}")).accepted_by(&rules);
    let error = Sent::bearing(&token).refused_by(&rules);
    assert_eq!(
        error,
        Unauthenticated::UnknownIssuer {
            issuer: "two".into()
        }
    );
}

#[test]
fn no_byte_of_a_token_can_be_changed() {
    let key = TestIssuer::ed25519();
    let rules = [key.rule(ISSUER)];
    let token = key.token(&claims());
    Sent::bearing(&token).accepted_by(&rules);
    for position in 0..token.len() {
        for replacement in ['A', 'w', '-', '.', '='] {
            let mut changed: Vec<char> = token.chars().collect();
            if std::mem::replace(&mut changed[position], replacement) != replacement {
                let changed: String = changed.into_iter().collect();
                Sent::bearing(&changed).refused_by(&rules);
            }
        }
    }
}

proptest! {
    #[test]
    fn random_tokens_are_refused(header in ".{0,60}", payload in ".{0,60}", rest in ".{0,60}") {
        let rules = [rule(ISSUER)];
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let signed = unsigned(&json!({"alg": "EdDSA"}), &claims());
        for token in [
            format!("{}.{}.{}", encode(&header), encode(&payload), encode(&rest)),
            format!("{signed}.{}", encode(&rest)),
            format!("{}.{}", encode(&header), encode(&payload)),
        ] {
            Sent::bearing(&token).refused_by(&rules);
        }
    }
}
