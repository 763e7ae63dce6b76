//! When keys are fetched, and which are used meanwhile. The tests control the clock.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::published_at;
use super::script::{Answer, HANGS, Script};
use crate::KeyCache;
use crate::cache::CAPACITY;
use crate::testing::in_one_namespace;
use crate::unverified::TokenHeader;
use ambit_policy::{Algorithm, JwtRule, KeySource};

const MINUTE: Duration = Duration::from_secs(60);

struct Setup {
    script: Arc<Script>,
    cache: KeyCache,
    rule: JwtRule,
}

impl Setup {
    fn new(answer: Answer) -> Self {
        let script = Arc::new(Script::new(answer));
        let cache = KeyCache::new(Handle::current(), script.clone());
        let rule = published_at("https://issuer.example/jwks");
        cache.wanted(in_one_namespace([&rule]));
        Self {
            script,
            cache,
            rule,
        }
    }

    /// Whether there is a key with this `kid`, after the time that a request would wait.
    async fn has(&self, id: &str) -> bool {
        let header = header(id);
        let JwtRule { keys, timeout, .. } = &self.rule;
        let keys = self.cache.keys_for(keys, &header, *timeout).await;
        keys.is_some_and(|keys| keys.has_key_for(&header))
    }
}

fn header(id: &str) -> TokenHeader {
    TokenHeader {
        algorithm: Algorithm::EdDsa,
        key_id: Some(id.to_owned()),
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_immediately_and_again_after_twenty_minutes() {
    let setup = Setup::new(Answer::Key("a"));
    assert!(setup.has("a").await);
    sleep(17 * MINUTE).await;
    assert_eq!(setup.script.begun(), 1);
    sleep(4 * MINUTE).await;
    assert_eq!(setup.script.begun(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_the_fetch_that_is_under_way() {
    let setup = Setup::new(Answer::Late("a", Duration::from_secs(4)));
    let (one, two) = tokio::join!(setup.has("a"), setup.has("a"));
    assert!(one && two);
    assert_eq!(setup.script.begun(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_no_longer_than_its_rule_says() {
    let mut setup = Setup::new(Answer::Hangs);
    setup.rule.timeout = Duration::from_millis(100);
    let began = Instant::now();
    assert!(!setup.has("a").await);
    assert!(
        began.elapsed() < Duration::from_millis(200),
        "on the test's own clock"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hanging_fetch_ends_and_is_made_again() {
    let setup = Setup::new(Answer::Hangs);
    assert!(!setup.has("a").await);
    setup.script.now_answers(Answer::Key("a"));
    sleep(MINUTE).await;
    assert!(setup.has("a").await);
    assert_eq!(setup.cache.problems(), []);
}

#[tokio::test(start_paused = true)]
async fn the_last_good_keys_are_kept_while_refreshes_fail() {
    let setup = Setup::new(Answer::Key("a"));
    assert!(setup.has("a").await);
    setup.script.now_answers(Answer::Fails);
    sleep(24 * 60 * MINUTE).await;
    assert!(setup.has("a").await);
    let [problem] = &setup.cache.problems()[..] else {
        panic!("one problem")
    };
    assert!(problem.last_good_in_force);
    assert!(problem.message.contains("503"), "{}", problem.message);
    setup.script.now_answers(Answer::Key("b"));
    sleep(3 * MINUTE).await;
    assert!(setup.has("b").await);
    assert!(!setup.has("a").await);
    assert_eq!(setup.cache.problems(), []);
}

#[tokio::test(start_paused = true)]
async fn failures_are_not_repeated_at_any_rate_and_requests_do_not_wait_for_them() {
    let setup = Setup::new(Answer::Fails);
    assert!(!setup.has("a").await);
    let began = Instant::now();
    assert!(!setup.has("a").await);
    assert_eq!(began.elapsed(), Duration::ZERO);
    sleep(60 * MINUTE).await;
    let attempts = setup.script.begun();
    assert!((24..=60).contains(&attempts), "{attempts} in an hour");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_is_fetched_on_demand() {
    let setup = Setup::new(Answer::Key("a"));
    assert!(setup.has("a").await);
    setup.script.now_answers(Answer::Key("b"));
    assert!(!setup.has("b").await, "too early");
    sleep(MINUTE).await;
    assert!(setup.has("b").await);
    assert_eq!(setup.script.begun(), 2);
}

#[tokio::test(start_paused = true)]
async fn tokens_with_unknown_keys_cause_few_fetches() {
    let setup = Setup::new(Answer::Key("a"));
    assert!(setup.has("a").await);
    for _ in 0..600 {
        sleep(Duration::from_secs(1)).await;
        assert!(!setup.has("made-up").await);
    }
    let fetches = setup.script.begun();
    assert!((2..=21).contains(&fetches), "{fetches} in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_no_longer_wanted_are_dropped_and_not_fetched() {
    let setup = Setup::new(Answer::Key("a"));
    assert!(setup.has("a").await);
    setup.cache.wanted(in_one_namespace([]));
    assert!(!setup.has("a").await);
    sleep(60 * MINUTE).await;
    assert_eq!(setup.script.begun(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_still_wanted_stays_as_it_is() {
    let mut setup = Setup::new(Answer::Key("a"));
    assert!(setup.has("a").await);
    setup.script.now_answers(Answer::Fails);
    let other = published_at("https://other.example/jwks");
    setup.cache.wanted(in_one_namespace([&setup.rule, &other]));
    assert!(setup.has("a").await);
    setup.rule.timeout = Duration::from_secs(20);
    setup.cache.wanted(in_one_namespace([&setup.rule]));
    assert!(setup.has("a").await);
}

/// Rules of several namespaces, each with a number of URLs that hang and one that does not.
fn crowd(namespaces: usize, hanging: usize) -> Vec<(Arc<str>, JwtRule)> {
    let number_of = |namespace: usize| -> Arc<str> { format!("ns-{namespace}").into() };
    let rule = |path: &str| published_at(&format!("https://issuer.example{path}"));
    let of_namespace = |namespace: usize| {
        let hang = (0..hanging).map(move |url| rule(&format!("{HANGS}{namespace}/{url}")));
        let rules = hang.chain([rule(&format!("/good/{namespace}"))]);
        rules.map(move |rule| (number_of(namespace), rule))
    };
    (0..namespaces).flat_map(of_namespace).collect()
}

/// How long it takes until all keys of these rules have been fetched.
async fn until_there(cache: &KeyCache, rules: &[(Arc<str>, JwtRule)]) -> Duration {
    let began = Instant::now();
    for (_, rule) in rules {
        loop {
            let header = header("a");
            let keys = cache.keys_for(&rule.keys, &header, Duration::from_millis(100));
            if keys.await.is_some_and(|keys| keys.has_key_for(&header)) {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
    began.elapsed()
}

fn with_namespaces(rules: &[(Arc<str>, JwtRule)]) -> impl Iterator<Item = (&Arc<str>, &JwtRule)> {
    rules.iter().map(|(namespace, rule)| (namespace, rule))
}

#[tokio::test(start_paused = true)]
async fn urls_that_hang_in_one_namespace_do_not_delay_others() {
    let script = Arc::new(Script::new(Answer::Key("a")));
    let cache = KeyCache::new(Handle::current(), script.clone());
    let mut rules = crowd(1, 24);
    let hostile = rules.clone();
    cache.wanted(with_namespaces(&hostile));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(script.most_running(), CAPACITY.share);
    let other = ("other".into(), published_at("https://issuer.example/other"));
    rules.push(other.clone());
    cache.wanted(with_namespaces(&rules));
    let waited = until_there(&cache, &[other]).await;
    assert!(waited < Duration::from_secs(1), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn urls_that_hang_everywhere_delay_others_by_the_turns_of_a_round() {
    let script = Arc::new(Script::new(Answer::Key("a")));
    let cache = KeyCache::new(Handle::current(), script.clone());
    let mut rules = crowd(40, 24);
    cache.wanted(with_namespaces(&rules));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(script.most_running(), CAPACITY.total);
    let other = ("other".into(), published_at("https://issuer.example/other"));
    rules.push(other.clone());
    cache.wanted(with_namespaces(&rules));
    let waited = until_there(&cache, &[other]).await;
    // Each of the 41 namespaces has its turn once before: two rounds of 32 fetches, of 5 s each.
    assert!(waited <= Duration::from_secs(11), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_url_that_several_namespaces_name_waits_in_the_shortest_line() {
    let script = Arc::new(Script::new(Answer::Key("a")));
    let cache = KeyCache::new(Handle::current(), script.clone());
    let shared = published_at("https://issuer.example/shared");
    let mut rules = crowd(1, 24);
    // URLs that are wanted at the same time have no order.
    cache.wanted(with_namespaces(&rules));
    sleep(Duration::from_millis(500)).await;
    rules.push((Arc::clone(&rules[0].0), shared.clone()));
    cache.wanted(with_namespaces(&rules));
    sleep(Duration::from_millis(500)).await;
    assert_eq!(script.begun_at("/shared"), 0, "behind those that hang");
    let other = ("other".into(), shared);
    rules.push(other.clone());
    cache.wanted(with_namespaces(&rules));
    let waited = until_there(&cache, &[other]).await;
    assert!(waited < Duration::from_secs(1), "{waited:?}");
    assert_eq!(script.begun_at("/shared"), 1);
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_known_stay_while_a_namespace_has_its_urls_hang() {
    let script = Arc::new(Script::new(Answer::Key("a")));
    let cache = KeyCache::new(Handle::current(), script.clone());
    let known = ("known".into(), published_at("https://issuer.example/known"));
    cache.wanted(with_namespaces(std::slice::from_ref(&known)));
    until_there(&cache, std::slice::from_ref(&known)).await;
    let mut rules = crowd(40, 24);
    rules.push(known.clone());
    cache.wanted(with_namespaces(&rules));
    let header = header("a");
    let keys = cache.keys_for(&known.1.keys, &header, Duration::ZERO).await;
    assert!(keys.is_some_and(|keys| keys.has_key_for(&header)));
    assert_eq!(script.begun_at("/known"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_url_that_hangs_is_fetched_less_and_less_often() {
    let script = Arc::new(Script::new(Answer::Hangs));
    let cache = KeyCache::new(Handle::current(), script.clone());
    let rule = published_at("https://issuer.example/jwks");
    cache.wanted(in_one_namespace([&rule]));
    sleep(Duration::from_secs(60)).await;
    // A turn of 5 s and a pause of three quarters of 15 s at least.
    let first = script.begun();
    assert!((2..=4).contains(&first), "{first} in the first minute");
    sleep(60 * MINUTE).await;
    let attempts = script.begun();
    assert!((24..=60).contains(&attempts), "{attempts} in an hour");
}

#[tokio::test(start_paused = true)]
async fn a_new_timeout_does_not_start_a_fetch() {
    let mut setup = Setup::new(Answer::Fails);
    assert!(!setup.has("a").await);
    for seconds in 1..=10 {
        setup.rule.timeout = Duration::from_secs(seconds);
        setup.cache.wanted(in_one_namespace([&setup.rule]));
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(setup.script.begun(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_running_fetches_of_a_namespace_are_limited() {
    let setup = Setup::new(Answer::Hangs);
    let rules: Vec<_> = (0..50)
        .map(|number| published_at(&format!("https://issuer.example/{number}")))
        .collect();
    setup.cache.wanted(in_one_namespace(&rules));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(setup.script.most_running(), CAPACITY.share);
    setup.script.now_answers(Answer::Key("a"));
    sleep(2 * MINUTE).await;
    for rule in &rules {
        let header = header("a");
        let keys = setup.cache.keys_for(&rule.keys, &header, rule.timeout);
        assert!(keys.await.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn inline_keys_are_available_immediately() {
    let setup = Setup::new(Answer::Hangs);
    let rule = crate::testing::rule("issuer");
    setup.cache.wanted(in_one_namespace([&rule]));
    assert!(matches!(rule.keys, KeySource::Inline(_)));
    let header = header("any");
    let keys = setup.cache.keys_for(&rule.keys, &header, Duration::ZERO);
    assert!(keys.await.is_some());
}
