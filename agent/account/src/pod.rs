//! The account of one pod: its share, and what it has borrowed.

use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::charge::Charge;
use crate::exhausted::{AccountExhausted, Owner};
use crate::node::{Pool, signed};

/// One pod's part of its node's account. Clones share it.
#[derive(Clone, Debug)]
pub struct PodAccount {
    inner: Arc<Member>,
}

/// How much of a pod's account is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PodUsage {
    /// The bytes that the pod has in use.
    pub in_use: usize,
    /// The bytes that it is guaranteed.
    pub guarantee: usize,
    /// How often it was refused.
    pub refused: u64,
}

/// A pod that belongs to a pool until this is dropped.
#[derive(Debug)]
struct Member {
    pool: Arc<Pool>,
    pod: Arc<Counters>,
}

/// A pod's figures.
///
/// At rest, `guarantee - own + borrowed` is what the pod has in use. What is given back pays the debt first,
/// so that the pool is not kept from others while the pod's own share is idle.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    /// What is left of the guarantee.
    own: AtomicIsize,
    guarantee: AtomicUsize,
    borrowed: AtomicUsize,
    refused: AtomicU64,
}

/// Where the bytes of a charge come from.
#[derive(Clone, Copy)]
struct Sources {
    own: usize,
    borrowed: usize,
}

impl PodAccount {
    pub(crate) fn open(pool: &Arc<Pool>) -> Self {
        let pod = Arc::new(Counters::default());
        pool.join(Arc::clone(&pod));
        Self {
            inner: Arc::new(Member {
                pool: Arc::clone(pool),
                pod,
            }),
        }
    }

    /// Takes `bytes`.
    ///
    /// # Errors
    /// [`AccountExhausted`] if the pod's share and what it may borrow are less.
    pub fn take(&self, bytes: usize) -> Result<Charge, AccountExhausted> {
        let mut charge = self.nothing();
        charge.grow(bytes)?;
        Ok(charge)
    }

    /// Returns a charge of 0 bytes, to be grown.
    pub fn nothing(&self) -> Charge {
        Charge::nothing(self.clone())
    }

    /// Returns about how many bytes the pod can take for what it could do without. Ask [`Charge::extend`] to
    /// take them.
    #[must_use]
    pub fn spare(&self) -> usize {
        let Sources { own, borrowed } = self.spare_sources(usize::MAX);
        own + borrowed
    }

    /// Returns how much of the account is in use.
    #[must_use]
    pub fn usage(&self) -> PodUsage {
        let pod = &self.inner.pod;
        PodUsage {
            in_use: pod.in_use(),
            guarantee: pod.guarantee(),
            refused: pod.refused.load(Relaxed),
        }
    }

    pub(crate) fn draw(&self, bytes: usize) -> Result<(), AccountExhausted> {
        loop {
            let (seen, sources) = self.inner.pod.sources(bytes);
            self.borrow(sources.borrowed)
                .map_err(|owner| self.refuse(owner, bytes))?;
            if self.draw_own(seen, sources) {
                return Ok(());
            }
        }
    }

    /// Draws at most `most` bytes, and returns how many.
    pub(crate) fn draw_spare(&self, most: usize) -> usize {
        loop {
            let seen = self.inner.pod.own();
            let mut sources = self.spare_sources(most);
            if self.borrow(sources.borrowed).is_err() {
                sources.borrowed = 0;
            }
            if self.draw_own(seen, sources) {
                return sources.own + sources.borrowed;
            }
        }
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.settle(bytes);
        self.inner.pool.count_given_back(bytes);
    }

    /// Draws the own part, if the pod's share is still what was seen. If not, what was borrowed is repaid.
    fn draw_own(&self, seen: isize, sources: Sources) -> bool {
        let left = seen - signed(sources.own);
        let own = &self.inner.pod.own;
        let drawn = own.compare_exchange(seen, left, Relaxed, Relaxed).is_ok();
        if drawn {
            self.inner.pool.count_taken(sources.own + sources.borrowed);
        } else {
            self.settle(sources.borrowed);
        }
        drawn
    }

    fn borrow(&self, bytes: usize) -> Result<(), Owner> {
        if bytes == 0 {
            return Ok(());
        }
        let Member { pool, pod } = &*self.inner;
        pool.lend(bytes).ok_or(Owner::Node)?;
        pod.owe(bytes, pool.pod_most()).ok_or_else(|| {
            pool.repay(bytes);
            Owner::Pod
        })
    }

    /// Pays the pod's debt, and adds the rest to its share.
    fn settle(&self, bytes: usize) {
        let Member { pool, pod } = &*self.inner;
        let repaid = pod.repay(bytes);
        if repaid > 0 {
            pool.repay(repaid);
        }
        if bytes > repaid {
            pod.own.fetch_add(signed(bytes - repaid), Relaxed);
        }
    }

    /// A quarter of the share, and of the pool, is kept for what cannot be done without. Of the rest, a pod may
    /// owe twice what is left: one pod stops at half of the pool, and the next ones find some.
    fn spare_sources(&self, most: usize) -> Sources {
        let Member { pool, pod } = &*self.inner;
        let own = usize::try_from(pod.own())
            .unwrap_or(0)
            .saturating_sub(pod.guarantee() / 4)
            .min(most);
        let debt = pod.borrowed.load(Relaxed);
        let borrowed = (pool.spare().saturating_mul(2).saturating_sub(debt) / 3)
            .min(pod.may_owe(pool.pod_most()).saturating_sub(debt))
            .min(most - own);
        Sources { own, borrowed }
    }

    #[cold]
    pub(crate) fn refuse(&self, owner: Owner, asked: usize) -> AccountExhausted {
        let Member { pool, pod } = &*self.inner;
        pool.count_refused();
        pod.refused.fetch_add(1, Relaxed);
        AccountExhausted {
            owner,
            asked,
            pod: pod.in_use(),
            pod_most: pool.pod_most(),
            node: pool.in_use(),
            limit: pool.limit(),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.pool.leave(&self.pod);
    }
}

impl Counters {
    pub(crate) fn own(&self) -> isize {
        self.own.load(Relaxed)
    }

    pub(crate) fn guarantee(&self) -> usize {
        self.guarantee.load(Relaxed)
    }

    fn in_use(&self) -> usize {
        let share = signed(self.guarantee()).saturating_sub(self.own());
        let in_use = share.saturating_add(signed(self.borrowed.load(Relaxed)));
        usize::try_from(in_use).unwrap_or(0)
    }

    /// Splits `bytes` into what the share has left and what is to be borrowed; also returns what was seen of
    /// the share.
    fn sources(&self, bytes: usize) -> (isize, Sources) {
        let seen = self.own();
        let own = usize::try_from(seen).unwrap_or(0).min(bytes);
        let borrowed = bytes - own;
        (seen, Sources { own, borrowed })
    }

    fn may_owe(&self, most: usize) -> usize {
        most.saturating_sub(self.guarantee())
    }

    fn owe(&self, bytes: usize, most: usize) -> Option<()> {
        let may_owe = self.may_owe(most);
        let owe = |debt: usize| debt.checked_add(bytes).filter(|debt| *debt <= may_owe);
        self.borrowed.fetch_update(Relaxed, Relaxed, owe).ok()?;
        Some(())
    }

    /// Returns how much of `bytes` paid a debt.
    fn repay(&self, bytes: usize) -> usize {
        let pay = |debt: usize| (debt > 0).then(|| debt.saturating_sub(bytes));
        let debt = self.borrowed.fetch_update(Relaxed, Relaxed, pay);
        debt.map_or(0, |debt| debt.min(bytes))
    }

    /// Lowers the guarantee, and returns by how much. What is in use beyond it becomes a debt.
    pub(crate) fn lower_guarantee(&self, guarantee: usize, pool: &Pool) -> usize {
        let freed = self.guarantee().saturating_sub(guarantee);
        self.guarantee.fetch_sub(freed, Relaxed);
        self.own.fetch_sub(signed(freed), Relaxed);
        let owed = |own: isize| (own < 0).then_some(0);
        if let Ok(own) = self.own.fetch_update(Relaxed, Relaxed, owed) {
            pool.lend_in_arrears(own.unsigned_abs());
            self.borrowed.fetch_add(own.unsigned_abs(), Relaxed);
        }
        freed
    }

    pub(crate) fn raise_guarantee(&self, by: usize) {
        self.guarantee.fetch_add(by, Relaxed);
        self.own.fetch_add(signed(by), Relaxed);
    }

    /// Returns what the pod still has.
    pub(crate) fn close(&self) -> isize {
        self.own.swap(0, Relaxed)
    }
}
