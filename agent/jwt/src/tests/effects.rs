//! Which parts of a request the application sees.

use super::*;
use crate::apply;
use crate::testing::TestIssuer;
use ambit_policy::{ClaimHeader, TokenLocation};

/// Judges a request and changes it.
fn passed_on(mut sent: Sent, rules: &[JwtRule]) -> Sent {
    let verified = sent.judged_by(rules).expect("accepted");
    apply(
        rules,
        verified.as_ref(),
        &mut sent.headers,
        &mut sent.target,
    );
    sent
}

fn lines<'a>(sent: &'a Sent, name: &str) -> Vec<&'a str> {
    let lines = sent.headers.get_all(name).into_iter();
    lines.map(|line| line.to_str().expect("text")).collect()
}

fn output(header: &'static str, claim: &str) -> ClaimHeader {
    ClaimHeader {
        header: HeaderName::from_static(header),
        claim: claim.to_owned(),
    }
}

#[test]
fn only_the_token_is_removed_from_the_request() {
    let key = TestIssuer::ed25519();
    let mut rule = key.rule(ISSUER);
    rule.locations.push(TokenLocation::Cookie("session".into()));
    let rules = [rule];
    let token = key.token(&claims());
    let sent = Sent::get(&format!("/a%2f?x=%20&access_token={token}&y=a+b&&z#f"))
        .with("authorization", &format!("Bearer {token}"))
        .with("authorization", "Basic abc")
        .with("cookie", &format!("a=1; session={token};b=\"2\""))
        .with("cookie", &format!("session={token}"))
        .with("x-other", &token);
    let sent = passed_on(sent, &rules);
    assert_eq!(sent.target, "/a%2f?x=%20&y=a+b&&z#f");
    assert_eq!(lines(&sent, "authorization"), ["Basic abc"]);
    assert_eq!(lines(&sent, "cookie"), ["a=1; b=\"2\""]);
    assert_eq!(lines(&sent, "x-other"), [token.as_str()]);
    let only = passed_on(Sent::get(&format!("/?access%5ftoken={token}")), &rules);
    assert_eq!(only.target, "/");
    let bearing = passed_on(Sent::bearing(&token), &rules);
    assert!(bearing.headers.is_empty());
}

#[test]
fn a_token_is_forwarded_where_its_rule_says_so() {
    let key = TestIssuer::ed25519();
    let mut rule = key.rule(ISSUER);
    rule.forwards_original = true;
    let token = key.token(&claims());
    let sent = Sent::get(&format!("/?access_token={token}"))
        .with("authorization", &format!("Bearer {token}"));
    let (target, headers) = (sent.target.clone(), sent.headers.clone());
    let sent = passed_on(sent, &[rule]);
    assert_eq!((sent.target, sent.headers), (target, headers));
}

#[test]
fn claims_and_payload_become_headers() {
    let key = TestIssuer::ed25519();
    let mut rule = key.rule(ISSUER);
    rule.payload_header = Some(HeaderName::from_static("x-payload"));
    rule.space_delimited_claims = vec!["list".into()];
    rule.claim_headers = vec![
        output("x-sub", "sub"),
        output("x-number", "number"),
        output("x-bool", "bool"),
        output("x-nested", "a.b.c"),
        output("x-dotted", "https://names.example/role"),
        output("x-list", "list"),
        output("x-absent", "absent"),
        output("x-beyond", "sub.a"),
        output("x-object", "a"),
        output("x-bad", "bad"),
        output("x-utf8", "utf8"),
    ];
    let claims = json!({"iss": ISSUER, "sub": "s", "number": 5, "bool": true, "a": {"b": {"c": "d"}},
        "https://names.example/role": "r", "list": "a b", "bad": "a\r\nx-sub: root", "utf8": "é"});
    let token = key.token(&claims);
    let sent = passed_on(Sent::bearing(&token), &[rule]);
    let payload = token.split('.').nth(1).expect("a payload");
    for (name, value) in [
        ("x-payload", payload),
        ("x-sub", "s"),
        ("x-number", "5"),
        ("x-bool", "true"),
        ("x-nested", "d"),
        ("x-dotted", "r"),
        ("x-list", "a b"),
    ] {
        assert_eq!(lines(&sent, name), [value], "{name}");
    }
    for name in ["x-absent", "x-beyond", "x-object", "x-bad"] {
        assert_eq!(lines(&sent, name), Vec::<&str>::new(), "{name}");
    }
    assert_eq!(sent.headers["x-utf8"].as_bytes(), "é".as_bytes());
}

#[test]
fn a_client_cannot_send_the_headers_that_stand_for_a_token() {
    let key = TestIssuer::ed25519();
    let mut rule = key.rule(ISSUER);
    rule.payload_header = Some(HeaderName::from_static("x-payload"));
    rule.claim_headers = vec![output("x-sub", "sub"), output("x-role", "role")];
    let rules = [rule];
    let spoofed = |sent: Sent| {
        sent.with("x-payload", "forged")
            .with("x-sub", "root")
            .with("x-sub", "admin")
            .with("x-role", "admin")
            .with("x_role", "admin")
    };
    let without = passed_on(spoofed(Sent::get("/")), &rules);
    assert!(without.headers.is_empty());
    let token = key.token(&claims());
    let sent = passed_on(spoofed(Sent::bearing(&token)), &rules);
    assert_eq!(lines(&sent, "x-sub"), ["somebody"]);
    assert_eq!(lines(&sent, "x-role"), Vec::<&str>::new());
    assert_eq!(lines(&sent, "x_role"), Vec::<&str>::new());
    assert_ne!(lines(&sent, "x-payload"), ["forged"]);
    let mut preflight = spoofed(Sent::bearing("anything"))
        .with("origin", "https://a")
        .with("access-control-request-method", "GET");
    preflight.method = Method::OPTIONS;
    assert_eq!(
        lines(&passed_on(preflight, &rules), "x-sub"),
        Vec::<&str>::new()
    );
}

#[test]
fn of_several_tokens_the_one_that_policy_sees_has_the_header() {
    let (one, two) = (TestIssuer::ed25519(), TestIssuer::ed25519());
    let mut rules = [one.rule("one"), two.rule("two")];
    rules[1].locations = vec![TokenLocation::Parameter("second".into())];
    for rule in &mut rules {
        rule.claim_headers = vec![output("x-issuer", "iss")];
    }
    let first = one.token(&with(claims(), "iss", "one"));
    let second = two.token(&with(claims(), "iss", "two"));
    let sent =
        Sent::get(&format!("/?second={second}")).with("authorization", &format!("Bearer {first}"));
    assert_eq!(lines(&passed_on(sent, &rules), "x-issuer"), ["one"]);
}
