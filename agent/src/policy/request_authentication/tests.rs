use serde_json::{Value, json};

use super::*;
use crate::model::{ObjectName, Origin, PolicyKind};

/// An Ed25519 key (RFC 8037, appendix A.2).
const JWKS: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

fn object(spec: Value) -> PolicyObject {
    PolicyObject {
        kind: PolicyKind::AuthorizationPolicy,
        name: ObjectName::new("prod", "jwt"),
        revision: None,
        annotations: Default::default(),
        created: None,
        spec,
        origin: Origin::Kubernetes,
    }
}

fn rules(rules: Value) -> Result<Vec<JwtRule>, NotEnforced> {
    let parsed = parse(&object(json!({ "jwtRules": rules })));
    parsed.content.map(|content| content.rules)
}

fn rule(fields: Value) -> Result<JwtRule, NotEnforced> {
    let mut rule = json!({"issuer": "https://issuer.example"});
    for (name, value) in fields.as_object().expect("an object") {
        rule[name] = value.clone();
    }
    rules(json!([rule])).map(|mut rules| rules.remove(0))
}

#[test]
fn a_rule_with_an_issuer_only_has_the_defaults_of_istio() {
    let rule = rule(json!({})).expect("enforced");
    let discovery = "https://issuer.example/.well-known/openid-configuration";
    assert_eq!(
        rule,
        JwtRule {
            issuer: "https://issuer.example".into(),
            audiences: Vec::new(),
            keys: KeySource::Published(KeyUrl::Configuration(
                HttpUrl::parse(discovery).expect("a URL")
            )),
            locations: TokenLocation::defaults(),
            payload_header: None,
            claim_headers: Vec::new(),
            forwards_original: false,
            timeout: Duration::from_secs(5),
            space_delimited_claims: Vec::new(),
        }
    );
}

#[test]
fn every_field_is_read() {
    let rule = rule(json!({
        "audiences": ["a", "b"], "jwks": JWKS, "forwardOriginalToken": true, "timeout": "1m30s",
        "fromHeaders": [{"name": "X-Jwt-Token", "prefix": "Value "}, {"name": "auth-token"}],
        "fromParams": ["token"], "fromCookies": ["session"], "presence": "OPTIONAL",
        "outputPayloadToHeader": "X-Payload", "spaceDelimitedClaims": ["roles"],
        "outputClaimToHeaders": [{"header": "x-sub", "claim": "sub"}],
    }))
    .expect("enforced");
    assert_eq!(rule.audiences, ["a", "b"]);
    assert!(matches!(&rule.keys, KeySource::Inline(keys) if keys.keys().len() == 1));
    let header = |name, prefix: &str| TokenLocation::Header {
        name: HeaderName::from_static(name),
        prefix: prefix.into(),
    };
    assert_eq!(
        rule.locations,
        [
            header("x-jwt-token", "Value "),
            header("auth-token", ""),
            TokenLocation::Parameter("token".into()),
            TokenLocation::Cookie("session".into()),
        ]
    );
    assert_eq!(
        rule.payload_header,
        Some(HeaderName::from_static("x-payload"))
    );
    assert_eq!(rule.claim_headers[0].claim, "sub");
    assert!(rule.forwards_original);
    assert_eq!(rule.timeout, Duration::from_secs(90));
    assert_eq!(rule.space_delimited_claims, ["roles"]);
}

#[test]
fn keys_are_inline_fetched_or_discovered() {
    for name in ["jwksUri", "jwks_uri"] {
        let rule = rule(json!({name: "http://keys.auth:8000/jwks"})).expect("enforced");
        assert!(matches!(rule.keys, KeySource::Published(KeyUrl::Keys(url)) if url.port() == 8000));
    }
    let named = json!([{"issuer": "testing@secure.example", "jwks": JWKS}]);
    assert!(rules(named).is_ok());
}

#[test]
fn the_selector_is_read_and_an_object_without_rules_says_nothing() {
    let parsed = parse(&object(
        json!({"selector": {"matchLabels": {"app": "web"}}}),
    ));
    let labels = vec![("app".to_owned(), "web".to_owned())];
    assert_eq!(parsed.attachment, Attachment::Labels(labels));
    assert_eq!(parsed.content.expect("enforced").rules, []);
    assert!(parse(&object(Value::Null)).content.is_ok());
}

#[test]
fn what_is_not_understood_fails_closed_and_says_where_and_what_to_do() {
    for (fields, path, problem) in [
        (json!({"issuer": ""}), ".issuer", "remove it"),
        (json!({"issuer": 5}), ".issuer", "quote the value"),
        (
            json!({"issuer": "someone"}),
            "",
            "is no URL to find keys with; set one of them",
        ),
        (json!({"audiences": [""]}), ".audiences[0]", "remove it"),
        (
            json!({"jwks": JWKS, "jwksUri": "https://a/"}),
            "",
            "remove one",
        ),
        (
            json!({"jwksUri": "https://a/", "jwks_uri": "https://b/"}),
            ".jwks_uri",
            "remove",
        ),
        (
            json!({"jwksUri": "ftp://a/"}),
            ".jwksUri",
            "\"ftp://a/\": its scheme",
        ),
        (
            json!({"jwksUri": "a"}),
            ".jwksUri",
            "no absolute URL; write one",
        ),
        (json!({"jwks": "{}"}), ".jwks", "it needs a list \"keys\""),
        (
            json!({"jwks": "{\"keys\": []}"}),
            ".jwks",
            "it needs an RSA key",
        ),
        (json!({"jwks": {"keys": []}}), ".jwks", "quote the value"),
        (
            json!({"fromHeaders": [{"prefix": "a"}]}),
            ".fromHeaders[0]",
            "set name",
        ),
        (
            json!({"fromHeaders": [{"name": "a b"}]}),
            ".fromHeaders[0].name",
            "\"a b\" is no name",
        ),
        (
            json!({"fromHeaders": [{"name": "a", "x": 1}]}),
            ".fromHeaders[0].x",
            "remove the field",
        ),
        (json!({"fromParams": [""]}), ".fromParams[0]", "remove it"),
        (
            json!({"fromCookies": [1]}),
            ".fromCookies[0]",
            "quote the value",
        ),
        (
            json!({"outputPayloadToHeader": "Host"}),
            ".outputPayloadToHeader",
            "choose another",
        ),
        (
            json!({"outputPayloadToHeader": "x!"}),
            ".outputPayloadToHeader",
            "other than letters",
        ),
        (
            json!({"outputClaimToHeaders": [{"header": "a"}]}),
            ".outputClaimToHeaders[0]",
            "set them",
        ),
        (
            json!({"outputClaimToHeaders": [{"header": "content-length", "claim": "a"}]}),
            ".outputClaimToHeaders[0].header",
            "no token may set it",
        ),
        (
            json!({"outputClaimToHeaders": [{"header": "A", "claim": "a"},
                {"header": "a", "claim": "b"}]}),
            "",
            "the header a twice",
        ),
        (
            json!({"outputPayloadToHeader": "a",
                "outputClaimToHeaders": [{"header": "A", "claim": "a"}]}),
            "",
            "the header a twice",
        ),
        (
            json!({"forwardOriginalToken": "true"}),
            ".forwardOriginalToken",
            "without quotes",
        ),
        (
            json!({"timeout": "0s"}),
            ".timeout",
            "\"0s\" is no duration",
        ),
        (json!({"timeout": "-5s"}), ".timeout", "write such as"),
        (json!({"timeout": 5}), ".timeout", "quote the value"),
        (
            json!({"presence": "REQUIRED"}),
            ".presence",
            "AuthorizationPolicy",
        ),
        (json!({"newField": true}), ".newField", "remove the field"),
    ] {
        let error = rule(fields.clone()).expect_err("not enforced");
        assert_eq!(error.path, format!("spec.jwtRules[0]{path}"), "{fields}");
        assert!(error.problem.contains(problem), "{fields}: {error}");
    }
    let missing = rules(json!([{"jwks": JWKS}])).expect_err("not enforced");
    assert!(missing.problem.contains("no issuer"), "{missing}");
    for spec in [
        json!({"targetRefs": []}),
        json!({"selector": {"matchLabels": {"a*": "b"}}}),
        json!({"unknown": 1}),
        json!([]),
    ] {
        let parsed = parse(&object(spec));
        assert_eq!(parsed.attachment, Attachment::Everything);
        assert!(parsed.content.is_err());
    }
}
