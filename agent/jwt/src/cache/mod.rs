//! The keys of all issuers, shared by all shards and fetched in the background.

mod fetch;
mod remote;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;

use super::key_set::KeySet;
use super::unverified::TokenHeader;
use ambit_policy::{JwtRule, KeySource};
use remote::{Remote, Wanted};
use turns::{Capacity, FetchTurns, Namespaces};

pub use fetch::{Fetch, FetchError, FetchableAddresses, HttpFetcher, IsLocal, TrustError};
pub use remote::{DiscoveryError, KeyError};
pub use turns::FetchTurn;

/// How many fetches run at a time. Namespaces take turns, and a namespace whose URLs hang uses at most its
/// share. It takes eight of them before others wait, and then only until a running fetch ends.
const CAPACITY: Capacity = Capacity {
    total: 32,
    share: 4,
};

/// The least and the greatest limit of a fetch. Between them, it is its rules' longest timeout.
const FETCH_LIMITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// The keys of the issuers that policies name. Readers do not wait for writers.
pub struct KeyCache {
    entries: ArcSwap<HashMap<KeySource, Entry>>,
    /// Held while the entries are replaced.
    update: Mutex<()>,
    /// The runtime of the fetches.
    runtime: Handle,
    fetcher: Arc<dyn Fetch>,
    turns: Arc<FetchTurns>,
}

#[derive(Clone)]
enum Entry {
    Inline(Arc<KeySet>),
    Remote(Arc<Remote>),
}

/// A source of keys that could not be fetched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyProblem {
    /// What happened, and what to do, as a sentence.
    pub message: String,
    /// Whether keys of an earlier fetch are still in use.
    pub last_good_in_force: bool,
}

impl KeyCache {
    /// An empty cache, which fetches on `runtime`.
    pub fn new(runtime: Handle, fetcher: Arc<dyn Fetch>) -> Self {
        Self {
            entries: ArcSwap::default(),
            update: Mutex::default(),
            runtime,
            fetcher,
            turns: Arc::new(FetchTurns::new(CAPACITY)),
        }
    }

    /// Keeps the keys of these rules from now on, and no others. Each rule comes with the namespace of its
    /// object. Call it before requests are judged by the rules, because other keys are not available.
    ///
    /// Keys that were wanted before are not fetched again.
    pub fn wanted<'a>(&self, rules: impl IntoIterator<Item = (&'a Arc<str>, &'a JwtRule)>) {
        let mut demands: HashMap<&KeySource, Demand<'a>> = HashMap::new();
        for (namespace, rule) in rules {
            let demand = demands.entry(&rule.keys).or_default();
            demand.add(namespace, rule.timeout);
        }
        let _updating = self.update.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.entries.load();
        let entry = |(source, demand): (&KeySource, Demand<'_>)| {
            let entry = self.entry(source, &demand, before.get(source));
            (source.clone(), entry)
        };
        let entries = demands.into_iter().map(entry).collect();
        self.entries.store(Arc::new(entries));
    }

    fn entry(&self, source: &KeySource, demand: &Demand<'_>, before: Option<&Entry>) -> Entry {
        match (source, before) {
            (KeySource::Inline(_), Some(before)) => before.clone(),
            (KeySource::Inline(jwks), None) => Entry::Inline(Arc::new(KeySet::new(jwks))),
            (KeySource::Published(_), Some(Entry::Remote(remote))) => {
                remote.set_wanted(demand.wanted());
                Entry::Remote(Arc::clone(remote))
            }
            (KeySource::Published(url), _) => {
                let remote = Remote::start(url.clone(), demand.wanted(), self);
                Entry::Remote(Arc::new(remote))
            }
        }
    }

    /// The keys of a source; `None` if there are none. If the last fetch failed, the keys are those of an
    /// earlier one. Waits only if no key is for this token's header: for the fetch that is under way, or
    /// for a new one, which is made at limited intervals.
    pub(super) async fn keys_for(
        &self,
        source: &KeySource,
        header: &TokenHeader,
        timeout: Duration,
    ) -> Option<Arc<KeySet>> {
        let entry = self.entries.load().get(source).cloned();
        match entry? {
            Entry::Inline(keys) => Some(keys),
            Entry::Remote(remote) => remote.keys_for(header, timeout).await,
        }
    }

    /// The sources whose last fetch failed, for an operator.
    pub fn problems(&self) -> Vec<KeyProblem> {
        let entries = self.entries.load();
        let remotes = entries.values().filter_map(|entry| match entry {
            Entry::Inline(_) => None,
            Entry::Remote(remote) => remote.problem(),
        });
        let mut problems: Vec<_> = remotes.collect();
        problems.sort_by(|a, b| a.message.cmp(&b.message));
        problems
    }
}

/// The demand of all rules with one source of keys.
#[derive(Default)]
struct Demand<'a> {
    namespaces: BTreeSet<&'a Arc<str>>,
    limit: Duration,
}

impl<'a> Demand<'a> {
    fn add(&mut self, namespace: &'a Arc<str>, timeout: Duration) {
        let limit = timeout.clamp(FETCH_LIMITS.0, FETCH_LIMITS.1);
        self.namespaces.insert(namespace);
        self.limit = self.limit.max(limit);
    }

    fn wanted(&self) -> Wanted {
        let namespaces: Namespaces = self.namespaces.iter().copied().map(Arc::clone).collect();
        Wanted {
            namespaces,
            limit: self.limit,
        }
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache")
            .field("entries", &self.entries.load().len())
            .finish_non_exhaustive()
    }
}
