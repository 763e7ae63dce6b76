//! J-9: tokens of an issuer whose keys cannot be fetched.

use super::*;
use crate::testing::{TestIssuer, rule};
use ambit_policy::{KeySource, KeyUrl};

struct Fails;

impl Fetch for Fails {
    fn fetch<'a>(
        &'a self,
        _: &'a HttpUrl,
        _: &'a FetchTurn,
    ) -> BoxFuture<'a, Result<bytes::Bytes, FetchError>> {
        Box::pin(async { Err(FetchError::Unreachable) })
    }
}

fn published() -> JwtRule {
    let url = HttpUrl::parse("https://issuer.example/jwks").expect("a URL");
    JwtRule {
        keys: KeySource::Published(KeyUrl::Keys(url)),
        ..rule(ISSUER)
    }
}

async fn judged(sent: &Sent, cache: &KeyCache) -> Result<Option<VerifiedTokens>, Unauthenticated> {
    let request = RequestToAuthenticate {
        method: &sent.method,
        target: &sent.target,
        headers: &sent.headers,
    };
    authenticate(&[published()], &request, cache, now()).await
}

#[tokio::test(start_paused = true)]
async fn j_9_without_keys_no_token_is_accepted_and_requests_without_one_pass() {
    let cache = KeyCache::new(tokio::runtime::Handle::current(), Arc::new(Fails));
    let token = TestIssuer::ed25519().token(&claims());
    let no_keys = Unauthenticated::NoKeys { issuer: issuer() };
    let nobody_asked = judged(&Sent::bearing(&token), &cache).await;
    assert_eq!(nobody_asked.err(), Some(no_keys.clone()));
    cache.wanted(in_one_namespace(&[published()]));
    let error = judged(&Sent::bearing(&token), &cache).await.err();
    assert_eq!(error, Some(no_keys.clone()));
    assert_eq!(no_keys.status().as_u16(), 401);
    assert_eq!(no_keys.body(), "Jwks remote fetch is failed");
    assert!(
        judged(&Sent::get("/"), &cache)
            .await
            .expect("passes")
            .is_none()
    );
    let [problem] = &cache.problems()[..] else {
        panic!("one problem")
    };
    assert!(!problem.last_good_in_force);
    assert!(
        problem
            .message
            .starts_with("the keys at https://issuer.example/jwks cannot be")
    );
}
