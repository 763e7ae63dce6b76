//! A token from a client, and a key set from a server: no one forges a token of an issuer without its
//! key, and no key set harms the agent.

#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use ambit_fuzz::{ensure_linear, ensure_linear_text};
use ambit_jwt::{Fetch, FetchError, KeyCache, RequestHead, Turn, apply, authenticate};
use ambit_policy::{HttpUrl, Jwks, JwtRule, KeySource, Presence, TokenLocation};
use arbitrary::Arbitrary;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, header};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

const ISSUER: &str = "https://issuer.example";

/// The key of RFC 8037, appendix A.2.
const JWKS: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime"));

static RULES: LazyLock<[JwtRule; 1]> = LazyLock::new(|| [rule(JWKS.as_bytes()).expect("keys")]);

static CACHE: LazyLock<KeyCache> = LazyLock::new(|| cache(&*RULES));

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Any string, or one that can be split and fails later.
    token: Token<'a>,
    cookies: &'a [u8],
    target: &'a str,
    keys: &'a [u8],
}

#[derive(Arbitrary, Debug)]
enum Token<'a> {
    Any(&'a [u8]),
    Parts {
        header: &'a str,
        payload: &'a str,
        signature: &'a [u8],
    },
}

struct NeverFetches;

impl Fetch for NeverFetches {
    fn fetch<'a>(
        &'a self,
        url: &'a HttpUrl,
        _: &'a Turn,
    ) -> BoxFuture<'a, Result<bytes::Bytes, FetchError>> {
        panic!("{url} is fetched")
    }
}

fn rule(jwks: &[u8]) -> Option<JwtRule> {
    let mut locations = TokenLocation::defaults();
    locations.push(TokenLocation::Cookie("session".to_owned()));
    Some(JwtRule {
        issuer: Some(ISSUER.to_owned()),
        audiences: Vec::new(),
        keys: KeySource::Inline(Arc::new(Jwks::parse(jwks).ok()?)),
        locations,
        presence: Presence::Optional,
        payload_header: Some(http::HeaderName::from_static("x-payload")),
        claim_headers: Vec::new(),
        forwards_original: false,
        timeout: Duration::ZERO,
        space_delimited_claims: Vec::new(),
    })
}

fn cache(rules: &[JwtRule]) -> KeyCache {
    let cache = KeyCache::new(RUNTIME.handle().clone(), Arc::new(NeverFetches));
    let namespace = "default".into();
    cache.wanted(rules.iter().map(|rule| (&namespace, rule)));
    cache
}

impl Token<'_> {
    fn text(&self) -> Vec<u8> {
        match self {
            Self::Any(bytes) => bytes.to_vec(),
            Self::Parts {
                header,
                payload,
                signature,
            } => {
                let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
                let (header, payload) = (encode(header.as_bytes()), encode(payload.as_bytes()));
                format!("{header}.{payload}.{}", encode(signature)).into_bytes()
            }
        }
    }
}

/// Looks for tokens, and changes the request as the rules say.
fn judge(target: &str, headers: &HeaderMap, now: SystemTime) -> Option<()> {
    let request = RequestHead {
        method: &Method::GET,
        target,
        headers,
    };
    let judged = RUNTIME.block_on(authenticate(&*RULES, &request, &CACHE, now));
    let (mut headers, mut target) = (headers.clone(), target.to_owned());
    apply(&*RULES, judged.ok()?.as_ref(), &mut headers, &mut target);
    Some(())
}

fuzz_target!(|input: Input<'_>| {
    let mut headers = HeaderMap::new();
    let bearer = [b"Bearer ", &input.token.text()[..]].concat();
    for (name, value) in [
        (header::AUTHORIZATION, &bearer[..]),
        (header::COOKIE, input.cookies),
    ] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
    }
    let request = RequestHead {
        method: &Method::GET,
        target: input.target,
        headers: &headers,
    };
    let now = SystemTime::now();
    ensure_linear(input.cookies, |cookies| {
        let cookies = HeaderValue::from_bytes(cookies).ok()?;
        let headers = HeaderMap::from_iter([(header::COOKIE, cookies)]);
        judge("/", &headers, now)
    });
    ensure_linear_text(input.target, |target| judge(target, &headers, now));
    ensure_linear(&input.token.text(), |token| {
        let token = HeaderValue::from_bytes(&[b"Bearer ", token].concat()).ok()?;
        judge(
            "/",
            &HeaderMap::from_iter([(header::AUTHORIZATION, token)]),
            now,
        )
    });
    ensure_linear(input.keys, |keys| Jwks::parse(keys).ok());
    let judged = RUNTIME.block_on(authenticate(&*RULES, &request, &CACHE, now));
    assert!(!matches!(judged, Ok(Some(_))), "forged: {judged:?}");
    // Whoever serves the keys may sign with them, so this is not a forgery.
    if let Some(rule) = rule(input.keys) {
        let rules = [rule];
        let judged = RUNTIME.block_on(authenticate(&rules, &request, &cache(&rules), now));
        let verified = judged.ok().flatten();
        let mut target = input.target.to_owned();
        apply(&rules, verified.as_ref(), &mut headers.clone(), &mut target);
        assert!(verified.is_some() || target == input.target);
    }
});
