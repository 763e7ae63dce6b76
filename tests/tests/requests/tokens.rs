//! J: tokens.

use ambit_tests::{Lab, Site, TokenIssuer, unsigned};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::expected::{
    Expected::{Denied, Passes, Refused},
    ensure_comes, request,
};

const ISSUER: &str = "https://issuer.example";

/// Claims of a valid token, with more of them.
fn claims(more: Value) -> Value {
    let mut claims = json!({"iss": ISSUER, "sub": "sub-1", "exp": 4_102_444_800_u64});
    for (name, value) in more.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    claims
}

/// A port on which nothing listens.
const NO_KEYS: &str = "http://127.0.0.1:9/keys";

/// Rules for the tokens of all pods, and one for `j9` whose keys cannot be fetched.
fn request_authentication(issuer: &TokenIssuer) -> String {
    let rules = json!([{
        "issuer": ISSUER,
        "jwks": issuer.jwks().to_string(),
        "fromHeaders": [{"name": "Authorization", "prefix": "Bearer "}],
        "fromParams": ["token", "secondary"],
    }]);
    let without_keys = json!([{"issuer": "https://unreachable.example", "jwksUri": NO_KEYS}]);
    let object = |name: &str, selector: &str, rules: &Value| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
             metadata: {{name: {name}, namespace: web}}\n\
             spec:\n  selector: {{matchLabels: {{app: {selector}}}}}\n  jwtRules: {rules}\n"
        )
    };
    let with = |fields: Value| {
        let mut rules = rules.clone();
        for (name, value) in fields.as_object().into_iter().flatten() {
            rules[0][name] = value.clone();
        }
        rules
    };
    let pods = ["j1", "j2", "j3", "j4", "j6", "j7", "j8", "principals"];
    let mut objects: Vec<String> = pods.iter().map(|pod| object(pod, pod, &rules)).collect();
    objects.push(object("j9", "j9", &without_keys));
    for (pod, rules) in [
        (
            "audience",
            with(json!({"audiences": ["right"], "fromCookies": []})),
        ),
        ("required", with(json!({"presence": "REQUIRED"}))),
        (
            "no-keys",
            with(json!({"jwks": "{\"keys\": []}", "outputPayloadToHeader": ""})),
        ),
        (
            "no-issuer",
            json!([{"jwksUri": NO_KEYS, "fromHeaders": [], "spaceDelimitedClaims": [""]}]),
        ),
    ] {
        objects.push(object(pod, pod, &rules));
    }
    objects.join("---\n")
}

/// A token, as it comes in the tests.
enum Token {
    None,
    Bearer(String),
    /// After credentials of another scheme.
    AfterBasic(String),
    Target(String),
}

pub(crate) fn j_tokens(lab: &Lab) -> Result<()> {
    let (issuer, stranger) = (TokenIssuer::new()?, TokenIssuer::new()?);
    lab.manifests()
        .write("tokens.yaml", &request_authentication(&issuer))?;
    let claim = |claim: &str, value: &str| {
        format!("rules: [{{when: [{{key: 'request.auth.{claim}', values: [{value}]}}]}}]")
    };
    let (audience, scope) = (claim("audiences", "foo"), claim("claims[scope]", "write"));
    let nested = claim("claims[nested][nested-2][key1]", "valueA");
    let site = Site::start(
        lab,
        &[
            ("j1", &[]),
            (
                "j2",
                &["rules: [{from: [{source: {requestPrincipals: ['*']}}]}]"],
            ),
            (
                "j3",
                &["rules: [{from: [{source: \
                   {notRequestPrincipals: ['https://issuer.example/sub-1']}}]}]"],
            ),
            (
                "j4",
                &["action: DENY\nrules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]"],
            ),
            ("j6", &[&audience]),
            ("j7", &[&scope]),
            ("j8", &[&nested]),
            ("j9", &[]),
            ("audience", &[]),
            ("required", &[]),
            ("no-keys", &[]),
            ("no-issuer", &[]),
            (
                "principals",
                &["rules: [{from: [{source: {requestPrincipals: ['*/*', 'https:*/sub-1']}}]}]"],
            ),
        ],
    )?;
    let token = |more: Value| issuer.token(&claims(more));
    let bearer = |more: Value| Ok::<_, anyhow::Error>(Token::Bearer(token(more)?));
    let expired = || token(json!({"exp": 1}));
    let header = json!({"alg": "RS256", "kid": "key"});
    let none = format!("{}.", unsigned(&json!({"alg": "none"}), &claims(json!({}))));
    let of_none = format!("{none}x");
    let by_public_key = issuer.token_with_public_key_as_secret(&claims(json!({})));
    let by_path = json!({"alg": "RS256", "kid": "../../../../dev/null"});
    let own_key = json!({"alg": "RS256", "kid": "key", "jwk": stranger.jwks()["keys"][0]});
    let passes = Passes("GET /");
    for (case, name, token, expected) in [
        ("J-1", "j1", Token::None, passes),
        ("J-1", "j1", bearer(json!({}))?, passes),
        ("J-1", "j1", Token::Bearer(expired()?), Refused(401)),
        (
            "J-1",
            "j1",
            bearer(json!({"iss": "https://other.example"}))?,
            Refused(401),
        ),
        ("J-1", "j1", Token::Bearer("rubbish".into()), Refused(401)),
        (
            "J-1",
            "j1",
            Token::AfterBasic("rubbish".into()),
            Refused(401),
        ),
        ("J-1", "j1", Token::AfterBasic(expired()?), Refused(401)),
        ("J-1", "j1", Token::Target("/?token=".into()), Refused(401)),
        ("J-2", "j2", Token::AfterBasic(token(json!({}))?), passes),
        ("J-2", "j2", Token::None, Denied),
        ("J-2", "j2", bearer(json!({}))?, passes),
        ("J-2", "j2", Token::Bearer(expired()?), Refused(401)),
        ("J-3", "j3", Token::None, passes),
        ("J-3", "j3", bearer(json!({}))?, Denied),
        ("J-3", "j3", bearer(json!({"sub": "sub-2"}))?, passes),
        ("J-4", "j4", Token::None, Denied),
        ("J-4", "j4", bearer(json!({}))?, passes),
        (
            "J-5",
            "j1",
            both(&token(json!({}))?, &expired()?),
            Refused(401),
        ),
        (
            "J-5",
            "j1",
            both(&expired()?, &token(json!({}))?),
            Refused(401),
        ),
        ("J-6", "j6", bearer(json!({"aud": "foo"}))?, passes),
        (
            "J-6",
            "j6",
            bearer(json!({"aud": ["foo", "buzz"]}))?,
            passes,
        ),
        ("J-6", "j6", bearer(json!({"aud": "bar"}))?, Denied),
        ("J-7", "j7", bearer(json!({"scope": "read write"}))?, passes),
        ("J-7", "j7", bearer(json!({"scope": "read"}))?, Denied),
        ("J-7", "j7", bearer(json!({"scope": "writer"}))?, Denied),
        (
            "J-8",
            "j8",
            bearer(json!({"nested": {"nested-2": {"key1": "valueA"}}}))?,
            passes,
        ),
        (
            "J-8",
            "j8",
            bearer(json!({"nested": {"nested-2": {"key2": "valueA"}}}))?,
            Denied,
        ),
        ("J-8", "j8", bearer(json!({"nested": "valueA"}))?, Denied),
        ("J-9", "j9", Token::None, passes),
        (
            "J-9",
            "j9",
            bearer(json!({"iss": "https://unreachable.example"}))?,
            Refused(401),
        ),
        ("audience", "audience", Token::None, passes),
        (
            "audience",
            "audience",
            bearer(json!({"aud": "right"}))?,
            passes,
        ),
        (
            "audience",
            "audience",
            bearer(json!({"aud": "wrong"}))?,
            Refused(403),
        ),
        ("presence", "required", Token::None, Refused(401)),
        ("presence", "required", bearer(json!({}))?, passes),
        (
            "presence",
            "required",
            Token::Bearer(expired()?),
            Refused(401),
        ),
        ("no keys", "no-keys", Token::None, passes),
        ("no keys", "no-keys", bearer(json!({}))?, Refused(401)),
        ("no issuer", "no-issuer", Token::None, passes),
        ("no issuer", "no-issuer", bearer(json!({}))?, Refused(401)),
        ("principals", "principals", Token::None, Denied),
        ("principals", "principals", bearer(json!({}))?, Denied),
        (
            "principals",
            "principals",
            bearer(json!({"sub": "*"}))?,
            passes,
        ),
        ("J-11", "j1", Token::Bearer(none), Refused(401)),
        ("J-11", "j1", Token::Bearer(of_none), Refused(401)),
        ("J-11", "j1", Token::Bearer(by_public_key), Refused(401)),
        (
            "J-11",
            "j1",
            Token::Bearer(stranger.token_with(&header, &claims(json!({})))?),
            Refused(401),
        ),
        (
            "J-11",
            "j1",
            Token::Bearer(stranger.token_with(&own_key, &claims(json!({})))?),
            Refused(401),
        ),
        (
            "J-11",
            "j1",
            Token::Bearer(stranger.token_with(&by_path, &claims(json!({})))?),
            Refused(401),
        ),
    ] {
        let bytes = match token {
            Token::None => request("GET /", &[]),
            Token::Bearer(token) => request("GET /", &[&format!("Authorization: Bearer {token}")]),
            Token::AfterBasic(token) => {
                let line = format!("Authorization: Basic dTpw, Bearer {token}");
                request("GET /", &[&line])
            }
            Token::Target(target) => request(&format!("GET {target}"), &[]),
        };
        ensure_comes(&site, site.backend(name)?, &bytes, expected).context(case)?;
    }
    let seen = site.backend("j2")?.web.heads().join("\n").to_lowercase();
    ensure!(
        !seen.contains("authorization"),
        "a token was passed on: {seen}"
    );
    preflights(&site, &expired()?)
}

fn both(first: &str, second: &str) -> Token {
    Token::Target(format!("/?token={first}&secondary={second}"))
}

/// J-10: a browser's CORS preflight has no token.
fn preflights(site: &Site, expired: &str) -> Result<()> {
    let backend = site.backend("j1")?;
    let bearer = format!("Authorization: Bearer {expired}");
    let origin = "Origin: https://page.example";
    let asked = "Access-Control-Request-Method: POST";
    for (line, headers, expected) in [
        (
            "OPTIONS /",
            &[&bearer, origin, asked][..],
            Passes("OPTIONS /"),
        ),
        ("OPTIONS /", &[&bearer, origin], Refused(401)),
        ("OPTIONS /", &[&bearer, asked], Refused(401)),
        ("GET /", &[&bearer, origin, asked], Refused(401)),
    ] {
        let bytes = request(line, headers);
        ensure_comes(site, backend, &bytes, expected).context("J-10")?;
    }
    Ok(())
}
