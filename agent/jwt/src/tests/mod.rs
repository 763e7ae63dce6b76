//! Requests with tokens, from rules to verdict and changed request.

mod attacks;
mod effects;
mod keys;
mod rules;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::testing::in_one_namespace;
use super::{
    Fetch, FetchError, FetchTurn, KeyCache, RequestToAuthenticate, Unauthenticated, VerifiedTokens,
    authenticate,
};
use ambit_policy::{HttpUrl, JwtRule};

const ISSUER: &str = "https://issuer.example";
const NOW: u64 = 1_800_000_000;

/// A cache of inline keys only.
struct Inline {
    cache: KeyCache,
    _runtime: Runtime,
}

struct NeverFetches;

impl Fetch for NeverFetches {
    fn fetch<'a>(
        &'a self,
        url: &'a HttpUrl,
        _: &'a FetchTurn,
    ) -> BoxFuture<'a, Result<bytes::Bytes, FetchError>> {
        panic!("{url} is fetched")
    }
}

impl Inline {
    fn new(rules: &[JwtRule]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let cache = KeyCache::new(runtime.handle().clone(), Arc::new(NeverFetches));
        cache.wanted(in_one_namespace(rules));
        Self {
            cache,
            _runtime: runtime,
        }
    }
}

/// A request.
struct Sent {
    method: Method,
    target: String,
    headers: HeaderMap,
}

impl Sent {
    fn get(target: &str) -> Self {
        Self {
            method: Method::GET,
            target: target.to_owned(),
            headers: HeaderMap::new(),
        }
    }

    fn bearing(token: &str) -> Self {
        Self::get("/").with("authorization", &format!("Bearer {token}"))
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::try_from(value).expect("a value");
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    /// Authenticates it, without waiting for anything.
    fn judged_by(&self, rules: &[JwtRule]) -> Result<Option<VerifiedTokens>, Unauthenticated> {
        let request = RequestToAuthenticate {
            method: &self.method,
            target: &self.target,
            headers: &self.headers,
        };
        let inline = Inline::new(rules);
        let judged = authenticate(rules, &request, &inline.cache, now());
        judged.now_or_never().expect("keys are there")
    }

    fn refused_by(&self, rules: &[JwtRule]) -> Unauthenticated {
        self.judged_by(rules).expect_err("refused")
    }

    /// The token that policies see. There has to be one.
    fn accepted_by(&self, rules: &[JwtRule]) -> VerifiedTokens {
        let verified = self.judged_by(rules).expect("accepted");
        verified.expect("a token")
    }
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn claims() -> Value {
    json!({"iss": ISSUER, "sub": "somebody", "exp": NOW + 600})
}

fn with(mut claims: Value, name: &str, value: impl Into<Value>) -> Value {
    claims[name] = value.into();
    claims
}

fn issuer() -> String {
    ISSUER.to_owned()
}
