//! The keys that are at one URL: fetched, refreshed, and kept while a refresh fails.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::fetch::{Fetch, FetchError};
use super::turns::{FetchTurn, FetchTurns, Namespaces};
use super::{KeyCache, KeyProblem};
use crate::key_set::KeySet;
use crate::unverified::TokenHeader;
use ambit_backoff::Backoff;
use ambit_observe::text::cut;
use ambit_policy::{HttpUrl, Jwks, JwksError, KeyUrl, RedactedUrl};

/// How long keys are used before they are fetched again, less a random part of up to a tenth. This is
/// Istio's default.
const REFRESH: Duration = Duration::from_secs(20 * 60);

/// The pause after failures.
const RETRY: Backoff =
    Backoff::doubling(Duration::from_secs(1), Duration::from_secs(120)).with_jitter(0.75, 1.25);

/// After a failure, the pause is at least this many times as long as the failed fetch took. So a URL that
/// hangs has a turn for at most a quarter of the time.
const PAUSE_PER_TURN: u32 = 3;

/// The longest message of a problem, in bytes. It may contain text from a host.
const MAX_PROBLEM: usize = 512;

/// Tokens with unknown keys cause at most one fetch in this time, because anyone can send them.
const ON_DEMAND: Duration = Duration::from_secs(30);

/// The keys at one URL. Dropping it stops its fetches.
pub(super) struct Remote {
    shared: Arc<Shared>,
    wanted: watch::Sender<Wanted>,
    task: AbortHandle,
}

/// Which namespaces want the keys, and how long a fetch may take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    pub(super) namespaces: Namespaces,
    pub(super) limit: Duration,
}

struct Shared {
    state: watch::Sender<State>,
    /// Requests a fetch before it is due.
    demand: Notify,
}

#[derive(Clone)]
struct State {
    keys: Option<Arc<KeySet>>,
    problem: Option<String>,
    is_fetching: bool,
    /// When the last fetch began.
    began: Instant,
    /// How many fetches have ended.
    ended: u64,
}

impl Remote {
    /// Starts to fetch.
    pub(super) fn start(url: KeyUrl, wanted: Wanted, cache: &KeyCache) -> Self {
        let state = State {
            keys: None,
            problem: None,
            is_fetching: true,
            began: Instant::now(),
            ended: 0,
        };
        let shared = Arc::new(Shared {
            state: watch::Sender::new(state),
            demand: Notify::new(),
        });
        let (wanted, follow) = watch::channel(wanted);
        let refresh = Refresh {
            url,
            wanted: follow,
            shared: Arc::clone(&shared),
            fetcher: Arc::clone(&cache.fetcher),
            turns: Arc::clone(&cache.turns),
        };
        let task = cache.runtime.spawn(refresh.run()).abort_handle();
        Self {
            shared,
            wanted,
            task,
        }
    }

    /// Changes which namespaces want the keys. The fetch that is under way continues; no new one starts.
    pub(super) fn set_wanted(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|current| {
            let is_changed = *current != wanted;
            *current = wanted;
            is_changed
        });
    }

    pub(super) fn keys(&self) -> Option<Arc<KeySet>> {
        self.shared.state.borrow().keys.clone()
    }

    pub(super) fn problem(&self) -> Option<KeyProblem> {
        let state = self.shared.state.borrow();
        state.problem.as_ref().map(|message| KeyProblem {
            message: message.clone(),
            last_good_in_force: state.keys.is_some(),
        })
    }

    pub(super) async fn keys_for(
        &self,
        header: &TokenHeader,
        wait: Duration,
    ) -> Option<Arc<KeySet>> {
        let State {
            keys,
            is_fetching,
            began,
            ended,
            ..
        } = self.shared.state.borrow().clone();
        let is_served = keys.as_ref().is_some_and(|keys| keys.has_key_for(header));
        if is_served || !(is_fetching || began.elapsed() >= ON_DEMAND) {
            return keys;
        }
        if !is_fetching {
            self.shared.demand.notify_one();
        }
        let mut states = self.shared.state.subscribe();
        // The keys are read after the wait, whether a fetch or the timeout ended it.
        let _ = timeout(wait, states.wait_for(|state| state.ended > ended)).await;
        self.keys()
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task behind a [`Remote`].
struct Refresh {
    url: KeyUrl,
    wanted: watch::Receiver<Wanted>,
    shared: Arc<Shared>,
    fetcher: Arc<dyn Fetch>,
    turns: Arc<FetchTurns>,
}

impl Refresh {
    async fn run(mut self) {
        let mut failures = 0_u32;
        loop {
            self.shared.state.send_modify(|state| {
                state.is_fetching = true;
                state.began = Instant::now();
            });
            let turn = self.turn().await;
            let began = Instant::now();
            let fetched = self.fetch(&turn).await;
            drop(turn);
            let pause = match fetched {
                Ok(keys) => {
                    failures = 0;
                    self.succeeded(keys);
                    REFRESH.mul_f64(1.0 - 0.1 * rand::random::<f64>())
                }
                Err(error) => {
                    self.failed(&error);
                    failures = failures.saturating_add(1);
                    RETRY.pause_of_at_least(failures, began.elapsed() * PAUSE_PER_TURN)
                }
            };
            self.pause(pause).await;
        }
    }

    /// Waits for a turn, in the queues of the namespaces that currently want the keys.
    async fn turn(&mut self) -> FetchTurn {
        loop {
            let namespaces = Arc::clone(&self.wanted.borrow_and_update().namespaces);
            tokio::select! {
                biased;
                turn = self.turns.take(namespaces) => return turn,
                // If the sender is gone, this task is about to be aborted.
                Ok(()) = self.wanted.changed() => {}
            }
        }
    }

    async fn fetch(&self, turn: &FetchTurn) -> Result<KeySet, KeyError> {
        let limit = self.wanted.borrow().limit;
        let keys = obtain(self.fetcher.as_ref(), &self.url, turn);
        timeout(limit, keys)
            .await
            .unwrap_or(Err(KeyError::TooSlow(limit)))
    }

    fn succeeded(&self, keys: KeySet) {
        if self.shared.state.borrow().problem.is_some() {
            info!("the keys at {} have been fetched again", self.url);
        }
        self.shared.state.send_modify(|state| {
            state.keys = Some(Arc::new(keys));
            state.problem = None;
            state.is_fetching = false;
            state.ended += 1;
        });
    }

    /// Keeps the current keys: an issuer that cannot be reached has not withdrawn them.
    fn failed(&self, error: &KeyError) {
        let message = problem(&self.url, error);
        if self.shared.state.borrow().problem.as_ref() != Some(&message) {
            warn!("{message}");
        }
        self.shared.state.send_modify(|state| {
            state.problem = Some(message);
            state.is_fetching = false;
            state.ended += 1;
        });
    }

    /// Waits until the next fetch is due, or one is requested and allowed.
    async fn pause(&self, pause: Duration) {
        let end = sleep(pause);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                () = self.shared.demand.notified() => {
                    if self.shared.state.borrow().began.elapsed() >= ON_DEMAND {
                        return;
                    }
                }
            }
        }
    }
}

/// The message for an operator.
fn problem(url: &KeyUrl, error: &KeyError) -> String {
    let message = format!("the keys at {url} cannot be fetched: {error}");
    cut(&message, MAX_PROBLEM).into_owned()
}

/// Why there are no keys. Displays as the end of a sentence.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The fetch failed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The fetch took too long.
    #[error("there was no answer within {0:?}; check whether the node can reach the host")]
    TooSlow(Duration),
    /// The answer is not a usable set of keys.
    #[error("the answer cannot be used: {0}")]
    Unusable(#[from] JwksError),
    /// The OpenID configuration cannot be used.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
}

/// Why an OpenID configuration does not lead to keys.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// Not JSON, or without `jwks_uri`.
    #[error(
        "the answer is not an OpenID configuration with a \"jwks_uri\"; set jwksUri in the policy"
    )]
    Malformed,
    /// Not an absolute URL.
    #[error("its \"jwks_uri\" {0} is not a URL that can be fetched; set jwksUri in the policy")]
    NoUrl(RedactedUrl),
    /// The configuration came over TLS, and the keys would not.
    #[error(
        "its \"jwks_uri\" {0} is not https, as the configuration is; set jwksUri in the policy"
    )]
    Downgrade(HttpUrl),
}

/// The part of an OpenID configuration that is used (OpenID Connect Discovery, section 3).
#[derive(Deserialize)]
struct Configuration {
    jwks_uri: String,
}

/// Fetches keys, if necessary by way of an OpenID configuration.
pub(super) async fn obtain(
    fetcher: &dyn Fetch,
    url: &KeyUrl,
    turn: &FetchTurn,
) -> Result<KeySet, KeyError> {
    let keys = match url {
        KeyUrl::Keys(url) => fetcher.fetch(url, turn).await?,
        KeyUrl::Configuration(url) => {
            let url = key_url(url, &fetcher.fetch(url, turn).await?)?;
            fetcher.fetch(&url, turn).await?
        }
    };
    Ok(KeySet::new(&Jwks::parse(&keys)?))
}

fn key_url(from: &HttpUrl, configuration: &[u8]) -> Result<HttpUrl, DiscoveryError> {
    let Configuration { jwks_uri } =
        serde_json::from_slice(configuration).map_err(|_| DiscoveryError::Malformed)?;
    let Ok(url) = HttpUrl::parse(&jwks_uri) else {
        return Err(DiscoveryError::NoUrl(RedactedUrl::new(&jwks_uri)));
    };
    if from.is_https() && !url.is_https() {
        return Err(DiscoveryError::Downgrade(url));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_leads_to_keys_but_not_out_of_tls() {
        let (plain, tls) = ("http://issuer/", "https://issuer/");
        let lead = |from: &str, configuration: &str| {
            let from = HttpUrl::parse(from).expect("a URL");
            key_url(&from, configuration.as_bytes()).map(|url| url.to_string())
        };
        let to = |url: &str| format!(r#"{{"issuer": "i", "jwks_uri": "{url}"}}"#);
        for (from, url) in [
            (tls, "https://other/k"),
            (plain, "https://o/k"),
            (plain, "http://o/k"),
        ] {
            assert_eq!(lead(from, &to(url)).expect("a URL"), url);
        }
        for (configuration, is_expected) in [
            (
                to("http://issuer/k"),
                "is not https, as the configuration is",
            ),
            (to("/k"), "is not a URL that can be fetched"),
            (to("file:///k"), "is not a URL that can be fetched"),
            ("{}".to_owned(), "is not an OpenID configuration"),
            ("<html>".to_owned(), "is not an OpenID configuration"),
        ] {
            let error = lead(tls, &configuration).expect_err("no keys").to_string();
            assert!(error.contains(is_expected), "{error}");
        }
    }
}
