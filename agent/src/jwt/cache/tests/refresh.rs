//! When keys are fetched, and which are there meanwhile; the clock is the test's.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::published_at;
use super::script::{Answer, Script};
use crate::jwt::KeyCache;
use crate::jwt::unverified::Header;
use crate::policy::{Algorithm, JwtRule, KeySource};

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
        cache.wanted([&rule]);
        Self {
            script,
            cache,
            rule,
        }
    }

    /// Whether a key with this `kid` is there, after the wait that a request would have.
    async fn has(&self, id: &str) -> bool {
        let header = header(id);
        let JwtRule { keys, timeout, .. } = &self.rule;
        let keys = self.cache.keys_for(keys, &header, *timeout).await;
        keys.is_some_and(|keys| keys.has_key_for(&header))
    }
}

fn header(id: &str) -> Header {
    Header {
        algorithm: Algorithm::EdDsa,
        key_id: Some(id.to_owned()),
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_at_once_and_again_after_twenty_minutes() {
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
async fn what_is_no_longer_wanted_is_dropped_and_not_fetched() {
    let setup = Setup::new(Answer::Key("a"));
    assert!(setup.has("a").await);
    setup.cache.wanted([]);
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
    setup.cache.wanted([&setup.rule, &other]);
    assert!(setup.has("a").await);
    setup.rule.timeout = Duration::from_secs(20);
    setup.cache.wanted([&setup.rule]);
    assert!(setup.has("a").await);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_fetches_run_at_once() {
    let setup = Setup::new(Answer::Hangs);
    let rules: Vec<_> = (0..50)
        .map(|number| published_at(&format!("https://issuer.example/{number}")))
        .collect();
    setup.cache.wanted(&rules);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(setup.script.most_running(), super::super::MAX_FETCHES);
    setup.script.now_answers(Answer::Key("a"));
    sleep(2 * MINUTE).await;
    for rule in &rules {
        let header = header("a");
        let keys = setup.cache.keys_for(&rule.keys, &header, rule.timeout);
        assert!(keys.await.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn inline_keys_are_there_at_once() {
    let setup = Setup::new(Answer::Hangs);
    let rule = crate::jwt::testing::rule("issuer");
    setup.cache.wanted([&rule]);
    assert!(matches!(rule.keys, KeySource::Inline(_)));
    let header = header("any");
    let keys = setup.cache.keys_for(&rule.keys, &header, Duration::ZERO);
    assert!(keys.await.is_some());
}
