use serde_json::{Value, json};

use super::*;
use ambit_model::{ObjectName, ObjectOrigin, PolicyKind};

/// An Ed25519 key (RFC 8037, appendix A.2).
const JWKS: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

fn object(spec: Value) -> Arc<PolicyObject> {
    Arc::new(PolicyObject {
        kind: PolicyKind::AuthorizationPolicy,
        name: ObjectName::new("prod", "jwt"),
        revision: None,
        annotations: Default::default(),
        created: None,
        spec,
        origin: ObjectOrigin::Kubernetes,
    })
}

fn rules(rules: Value) -> Result<Vec<JwtRule>, NotEnforced> {
    let parsed = parse(&object(json!({ "jwtRules": rules })));
    parsed.content.map(|content| content.rules.clone())
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
            issuer: Some("https://issuer.example".into()),
            audiences: Vec::new(),
            keys: KeySource::Published(KeyUrl::Configuration(
                HttpUrl::parse(discovery).expect("a URL")
            )),
            locations: TokenLocation::defaults(),
            presence: TokenPresence::Optional,
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
        "fromParams": ["token"], "fromCookies": ["session"], "presence": "REQUIRED",
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
    assert_eq!(rule.presence, TokenPresence::Required);
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
    assert_eq!(parsed.selector, Attachment::Labels(labels));
    assert_eq!(parsed.content.expect("enforced").rules, []);
    assert!(parse(&object(Value::Null)).content.is_ok());
}

#[test]
fn unknown_values_fail_closed_and_the_error_says_where_and_what_to_do() {
    for (fields, path, problem) in [
        (json!({"issuer": ""}), "", "no issuer and no jwksUri"),
        (
            json!({"issuer": "", "jwks": JWKS}),
            "",
            "no issuer and no jwksUri",
        ),
        (json!({"issuer": 5}), ".issuer", "quote the value"),
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
            "\"ftp://a/\": the URL's scheme",
        ),
        (
            json!({"jwksUri": "a"}),
            ".jwksUri",
            "not an absolute URL; write it",
        ),
        (json!({"jwks": "{}"}), ".jwks", "it needs a list \"keys\""),
        (json!({"jwks": "[]"}), ".jwks", "it needs a list \"keys\""),
        (json!({"jwks": {"keys": []}}), ".jwks", "quote the value"),
        (
            json!({"fromHeaders": [{"prefix": "a"}]}),
            ".fromHeaders[0]",
            "set name",
        ),
        (
            json!({"fromHeaders": [{"name": ""}]}),
            ".fromHeaders[0].name",
            "empty",
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
            json!({"outputClaimToHeaders": [{"header": "x!", "claim": "a"}]}),
            ".outputClaimToHeaders[0].header",
            "other than letters",
        ),
        (
            json!({"outputClaimToHeaders": [{"header": "a"}]}),
            ".outputClaimToHeaders[0]",
            "have to be set",
        ),
        (
            json!({"forwardOriginalToken": "true"}),
            ".forwardOriginalToken",
            "without quotes",
        ),
        (
            json!({"timeout": "0s"}),
            ".timeout",
            "\"0s\" is not a duration",
        ),
        (json!({"timeout": "-5s"}), ".timeout", "write it like"),
        (json!({"timeout": 5}), ".timeout", "quote the value"),
        (
            json!({"presence": "MANDATORY"}),
            ".presence",
            "use OPTIONAL or REQUIRED",
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
        json!({"selector": []}),
        json!({"selector": {"matchLabels": {"a*": "b"}}}),
        json!({"unknown": 1}),
        json!([]),
    ] {
        let parsed = parse(&object(spec));
        assert_eq!(parsed.selector, Attachment::Everything);
        assert!(parsed.content.is_err());
    }
}

/// A rule that is accepted, and its warnings.
fn taken(fields: &Value) -> (JwtRule, String) {
    let mut rule = json!({"issuer": "https://issuer.example"});
    for (name, value) in fields.as_object().expect("an object") {
        rule[name] = value.clone();
    }
    let parsed = parse(&object(json!({ "jwtRules": [rule] })));
    let warnings: Vec<_> = parsed.warnings.iter().map(ToString::to_string).collect();
    let rules = &parsed.content.expect("enforced").rules;
    (rules[0].clone(), warnings.join("\n"))
}

#[test]
fn empty_is_the_same_as_absent() {
    let plain = rule(json!({})).expect("enforced");
    for fields in [
        json!({"audiences": [], "fromHeaders": [], "fromParams": [], "fromCookies": [],
            "outputClaimToHeaders": [], "spaceDelimitedClaims": []}),
        json!({"outputPayloadToHeader": ""}),
        json!({"jwks": ""}),
        json!({"presence": "OPTIONAL"}),
    ] {
        let (rule, warnings) = taken(&fields);
        assert_eq!((rule, warnings.as_str()), (plain.clone(), ""), "{fields}");
    }
    let (rule, _) = taken(&json!({"fromHeaders": [{"name": "a", "prefix": ""}]}));
    let header = TokenLocation::Header {
        name: HeaderName::from_static("a"),
        prefix: String::new(),
    };
    assert_eq!(rule.locations, [header]);
    let (rule, _) = taken(&json!({"spaceDelimitedClaims": [""]}));
    assert_eq!(rule.space_delimited_claims, [""]);
}

#[test]
fn a_rule_without_an_issuer_needs_a_url_of_its_keys() {
    for issuer in [json!(""), Value::Null] {
        let (rule, warnings) = taken(&json!({"issuer": issuer, "jwksUri": "http://keys/"}));
        assert_eq!((rule.issuer, warnings.as_str()), (None, ""));
        assert!(matches!(rule.keys, KeySource::Published(KeyUrl::Keys(_))));
    }
}

#[test]
fn rules_without_usable_keys_are_accepted_and_refuse_tokens() {
    let one_key = &JWKS[JWKS.find('[').expect("a list") + 1..JWKS.rfind(']').expect("a list")];
    let many = format!("{{\"keys\": [{}]}}", vec![one_key; 200].join(","));
    let oct = r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}"#;
    for (fields, path, says) in [
        (
            json!({"issuer": "someone"}),
            "",
            "is not a URL that leads to keys",
        ),
        (
            json!({"issuer": "sub@secure.example"}),
            "",
            "set one of them",
        ),
        (
            json!({"jwks": "{\"keys\": []}"}),
            ".jwks",
            "needs an RSA key",
        ),
        (json!({"jwks": oct}), ".jwks", "needs an RSA key"),
        (
            json!({"jwks": one_key}),
            ".jwks",
            "it needs a list \"keys\"",
        ),
        (json!({"jwks": many}), ".jwks", "200 keys"),
        (
            json!({"jwksUri": "https://"}),
            ".jwksUri",
            "not an absolute URL",
        ),
        (
            json!({"jwksUri": "HTTP://host:99999/"}),
            ".jwksUri",
            "not an absolute URL",
        ),
        (
            json!({"jwksUri": "https://user:word@host/"}),
            ".jwksUri",
            "user information",
        ),
        (
            json!({"outputPayloadToHeader": "Host"}),
            ".outputPayloadToHeader",
            "how a request",
        ),
        (
            json!({"outputPayloadToHeader": "a b"}),
            ".outputPayloadToHeader",
            "\"a b\"",
        ),
        (
            json!({"jwks": JWKS, "outputClaimToHeaders": [{"header": "content-length",
                "claim": "a"}]}),
            ".outputClaimToHeaders[0].header",
            "no token may set it",
        ),
    ] {
        let (rule, warning) = taken(&fields);
        assert_eq!(
            rule.keys,
            KeySource::Inline(Arc::new(Jwks::none())),
            "{fields}"
        );
        let path = format!("spec.jwtRules[0]{path}: ");
        assert!(warning.starts_with(&path), "{fields}: {warning}");
        assert!(
            warning.contains("every token of this rule is refused"),
            "{warning}"
        );
        assert!(warning.contains(says), "{fields}: {warning}");
    }
}

#[test]
fn odd_names_of_headers_are_accepted() {
    // No token is found there, or anywhere else.
    let (rule, warning) = taken(&json!({"fromHeaders": [{"name": "a b", "prefix": "x"}]}));
    assert_eq!(rule.locations, []);
    assert!(
        warning.contains("no header can have the name \"a b\""),
        "{warning}"
    );
    let (rule, warning) = taken(&json!({"outputPayloadToHeader": "x!y"}));
    assert_eq!(rule.payload_header, Some(HeaderName::from_static("x!y")));
    assert_eq!(warning, "");
    for twice in [
        json!({"outputClaimToHeaders": [{"header": "A", "claim": "a"}, {"header": "a", "claim": "b"}]}),
        json!({"outputPayloadToHeader": "a", "outputClaimToHeaders": [{"header": "A", "claim": "a"}]}),
    ] {
        let (_, warning) = taken(&twice);
        assert!(warning.contains("only sees the first value"), "{warning}");
    }
}

#[test]
fn an_object_with_empty_references_applies_to_everything() {
    let parsed = parse(&object(json!({"targetRefs": [], "jwtRules": []})));
    assert_eq!(parsed.selector, Attachment::Everything);
    assert!(parsed.content.is_ok());
}
