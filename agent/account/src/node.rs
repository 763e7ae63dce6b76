//! The account of the node: the common pool, and the pods' shares.

use std::sync::atomic::{AtomicIsize, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::pod::{Counters, PodAccount};

/// The bytes that each pod can have whatever the others have, unless there are so many pods that half of the
/// account is reserved.
pub const GUARANTEE: usize = 4 << 20;

/// Shares that are reserved for pods that do not exist yet: a pod that starts while the common pool is used
/// up finds its share.
pub(crate) const NEWCOMERS: usize = 4;

/// One account of memory. Clones share it.
///
/// The pods together use at most the limit. If more than four pods start while the common pool is
/// used up, each of the further ones can add its share, until the others have paid back: at most half of the
/// limit in all.
#[derive(Clone, Debug)]
pub struct NodeAccount {
    pub(crate) pool: Arc<Pool>,
}

/// How much of a node's account is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeUsage {
    /// The bytes that all pods may have in use.
    pub limit: usize,
    /// The bytes that they have in use.
    pub in_use: usize,
    /// The most that they have had in use.
    pub peak: usize,
    /// How often a pod was refused.
    pub refused: u64,
    /// How many pods there are.
    pub pods: usize,
    /// The share that each of them is guaranteed.
    pub guarantee: usize,
}

/// What the pods share.
///
/// At rest, the sum of the pods' `own`, of `common` and of `in_use` is the limit. The counters publish nothing
/// but themselves, so they need no order.
#[derive(Debug)]
pub(crate) struct Pool {
    limit: usize,
    /// What no pod has and no guarantee of a pod reserves. Negative if pods that came later need more than was
    /// left.
    common: AtomicIsize,
    /// What has to stay in `common` for newcomers.
    floor: AtomicIsize,
    /// What has to stay beyond that for what cannot be done without.
    kept: AtomicIsize,
    in_use: AtomicUsize,
    peak: AtomicUsize,
    refused: AtomicU64,
    pods: Mutex<Vec<Arc<Counters>>>,
}

impl NodeAccount {
    /// Opens an account of `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let limit = limit.min(isize::MAX as usize);
        Self {
            pool: Arc::new(Pool {
                limit,
                common: AtomicIsize::new(signed(limit)),
                floor: AtomicIsize::new(0),
                kept: AtomicIsize::new(0),
                in_use: AtomicUsize::new(0),
                peak: AtomicUsize::new(0),
                refused: AtomicU64::new(0),
                pods: Mutex::default(),
            }),
        }
    }

    /// Opens the account of a pod. The pod is gone when its account, all clones of it and all its charges are
    /// dropped.
    #[must_use]
    pub fn pod(&self) -> PodAccount {
        PodAccount::open(&self.pool)
    }

    /// Returns how much of the account is in use.
    #[must_use]
    pub fn usage(&self) -> NodeUsage {
        let pods = self.pool.lock().len();
        NodeUsage {
            limit: self.pool.limit,
            in_use: self.pool.in_use(),
            peak: self.pool.peak.load(Relaxed),
            refused: self.pool.refused.load(Relaxed),
            pods,
            guarantee: self.pool.guarantee(pods),
        }
    }
}

impl Pool {
    pub(crate) const fn limit(&self) -> usize {
        self.limit
    }

    /// Returns the bytes that one pod may have: a flooded pod leaves some to the others.
    pub(crate) const fn pod_most(&self) -> usize {
        self.limit / 8 * 5
    }

    pub(crate) fn in_use(&self) -> usize {
        self.in_use.load(Relaxed)
    }

    /// Returns what pods may still borrow for what they could do without.
    pub(crate) fn spare(&self) -> usize {
        let stays = self.floor.load(Relaxed) + self.kept.load(Relaxed);
        usize::try_from(self.common.load(Relaxed) - stays).unwrap_or(0)
    }

    /// Lends `bytes`, if there are as many.
    pub(crate) fn lend(&self, bytes: usize) -> Option<()> {
        if bytes > self.limit {
            return None;
        }
        let floor = self.floor.load(Relaxed);
        let lend = |common: isize| {
            let left = common.checked_sub(signed(bytes))?;
            (left >= floor).then_some(left)
        };
        self.common.fetch_update(Relaxed, Relaxed, lend).ok()?;
        Some(())
    }

    /// Takes back what was lent.
    pub(crate) fn repay(&self, bytes: usize) {
        self.common.fetch_add(signed(bytes), Relaxed);
    }

    /// Lends what a pod has in use already, but no longer from its share.
    pub(crate) fn lend_in_arrears(&self, bytes: usize) {
        self.common.fetch_sub(signed(bytes), Relaxed);
    }

    pub(crate) fn count_taken(&self, bytes: usize) {
        let in_use = self.in_use.fetch_add(bytes, Relaxed) + bytes;
        if in_use > self.peak.load(Relaxed) {
            self.peak.fetch_max(in_use, Relaxed);
        }
    }

    pub(crate) fn count_given_back(&self, bytes: usize) {
        self.in_use.fetch_sub(bytes, Relaxed);
    }

    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn join(&self, pod: Arc<Counters>) {
        let mut pods = self.lock();
        pods.push(pod);
        self.share(&pods);
    }

    /// Takes everything back from a pod that has no charge left.
    pub(crate) fn leave(&self, pod: &Arc<Counters>) {
        let mut pods = self.lock();
        pods.retain(|other| !Arc::ptr_eq(other, pod));
        self.common.fetch_add(pod.close(), Relaxed);
        self.share(&pods);
    }

    /// Gives each pod the same guarantee.
    fn share(&self, pods: &[Arc<Counters>]) {
        let guarantee = self.guarantee(pods.len());
        let reserved = (pods.len() + NEWCOMERS) * guarantee;
        self.floor.store(signed(NEWCOMERS * guarantee), Relaxed);
        self.kept
            .store(signed((self.limit - reserved) / 4), Relaxed);
        for pod in pods {
            let freed = pod.lower_guarantee(guarantee, self);
            self.common.fetch_add(signed(freed), Relaxed);
        }
        for pod in pods {
            let missing = guarantee.saturating_sub(pod.guarantee());
            self.common.fetch_sub(signed(missing), Relaxed);
            pod.raise_guarantee(missing);
        }
    }

    const fn guarantee(&self, pods: usize) -> usize {
        let equal = self.limit / 2 / (pods + NEWCOMERS);
        if equal < GUARANTEE { equal } else { GUARANTEE }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Counters>>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn sum(&self) -> isize {
        let pods = self.lock();
        let own: isize = pods.iter().map(|pod| pod.own()).sum();
        own + self.common.load(Relaxed) + signed(self.in_use())
    }
}

/// Returns a number of bytes as a signed one. No account is larger.
pub(crate) const fn signed(bytes: usize) -> isize {
    if bytes > isize::MAX as usize {
        isize::MAX
    } else {
        bytes.cast_signed()
    }
}
