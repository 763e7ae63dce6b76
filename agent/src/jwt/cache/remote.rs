//! The keys that are at one URL: fetched, refreshed, and kept while a refresh fails.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::fetch::Fetch;
use super::obtain::{KeyError, obtain};
use super::{KeyCache, KeyProblem};
use crate::jwt::key_set::KeySet;
use crate::jwt::unverified::Header;
use crate::policy::KeyUrl;

/// How long keys are used before they are fetched again, less up to a tenth: Istio's default.
const REFRESH: Duration = Duration::from_secs(20 * 60);

/// The pause after a first failure, doubled by each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// Tokens with unknown keys cause no more than one fetch in this time: anybody can send them.
const ON_DEMAND: Duration = Duration::from_secs(30);

/// The keys at one URL. Dropping it ends its fetches.
pub(super) struct Remote {
    shared: Arc<Shared>,
    limit: Duration,
    task: AbortHandle,
}

struct Shared {
    state: watch::Sender<State>,
    /// Asks for a fetch before its time.
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
    /// Begins to fetch, with keys of an earlier time where there are some.
    pub(super) fn start(
        url: KeyUrl,
        limit: Duration,
        keys: Option<Arc<KeySet>>,
        cache: &KeyCache,
    ) -> Self {
        let state = State {
            keys,
            problem: None,
            is_fetching: true,
            began: Instant::now(),
            ended: 0,
        };
        let shared = Arc::new(Shared {
            state: watch::Sender::new(state),
            demand: Notify::new(),
        });
        let refresh = Refresh {
            url,
            limit,
            shared: Arc::clone(&shared),
            fetcher: Arc::clone(&cache.fetcher),
            turns: Arc::clone(&cache.turns),
        };
        let task = cache.runtime.spawn(refresh.run()).abort_handle();
        Self {
            shared,
            limit,
            task,
        }
    }

    /// The longest that a fetch takes.
    pub(super) fn limit(&self) -> Duration {
        self.limit
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

    pub(super) async fn keys_for(&self, header: &Header, wait: Duration) -> Option<Arc<KeySet>> {
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
        // Whatever ends the wait, the keys of that moment count.
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
    limit: Duration,
    shared: Arc<Shared>,
    fetcher: Arc<dyn Fetch>,
    turns: Arc<Semaphore>,
}

impl Refresh {
    async fn run(self) {
        let mut failures = 0;
        loop {
            self.shared.state.send_modify(|state| {
                state.is_fetching = true;
                state.began = Instant::now();
            });
            let pause = match self.fetch().await {
                Ok(keys) => {
                    failures = 0;
                    self.succeeded(keys);
                    REFRESH.mul_f64(1.0 - 0.1 * rand::random::<f64>())
                }
                Err(error) => {
                    self.failed(&error);
                    failures += 1;
                    pause_after(failures).mul_f64(0.75 + 0.5 * rand::random::<f64>())
                }
            };
            self.pause(pause).await;
        }
    }

    async fn fetch(&self) -> Result<KeySet, KeyError> {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        let keys = obtain(self.fetcher.as_ref(), &self.url);
        timeout(self.limit, keys)
            .await
            .unwrap_or(Err(KeyError::TooSlow(self.limit)))
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

    /// Keeps the keys that there are: an issuer that is away has not withdrawn them.
    fn failed(&self, error: &KeyError) {
        let message = format!("the keys at {} cannot be fetched: {error}", self.url);
        if self.shared.state.borrow().problem.as_ref() != Some(&message) {
            warn!("{message}");
        }
        self.shared.state.send_modify(|state| {
            state.problem = Some(message);
            state.is_fetching = false;
            state.ended += 1;
        });
    }

    /// Waits until the next fetch is due, or one is demanded and may be made.
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

/// The pause after some failures in a row, at least one.
fn pause_after(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    LONGEST_PAUSE.min(FIRST_PAUSE * (1 << doublings))
}
