use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::answer::{AuthorizerAnswer, CheckError, CheckOutcome};

/// Counts of checks since the start. The keys are from a fixed list of words, so their number is
/// bounded.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct AuthorizerStats {
    /// Requests and connections that authorizers allowed.
    pub allowed: u64,
    /// Requests and connections that authorizers denied.
    pub denied: u64,
    /// Checks without an answer, by reason.
    pub errors: BTreeMap<&'static str, u64>,
    /// Requests and connections that were let through without an answer (`failOpen`).
    pub let_through: u64,
}

/// One shard's counts.
#[derive(Debug, Default)]
pub struct AuthorizerCounts(RefCell<AuthorizerStats>);

impl AuthorizerStats {
    /// Adds another shard's counts.
    pub fn add(&mut self, other: &Self) {
        let Self {
            allowed,
            denied,
            errors,
            let_through,
        } = other;
        self.allowed += allowed;
        self.denied += denied;
        self.let_through += let_through;
        for (&reason, &count) in errors {
            *self.errors.entry(reason).or_default() += count;
        }
    }
}

impl AuthorizerCounts {
    pub(super) fn answered(&self, answer: &AuthorizerAnswer) {
        let mut stats = self.0.borrow_mut();
        match answer {
            AuthorizerAnswer::Allow(_) => stats.allowed += 1,
            AuthorizerAnswer::Deny(_) => stats.denied += 1,
            AuthorizerAnswer::Error(error) => *stats.errors.entry(error.as_str()).or_default() += 1,
        }
    }

    pub(super) fn settled(&self, outcome: &CheckOutcome) {
        match outcome {
            CheckOutcome::LetThrough(_) => self.0.borrow_mut().let_through += 1,
            CheckOutcome::Allow(_) | CheckOutcome::Deny(_) | CheckOutcome::Refuse { .. } => {}
        }
    }

    /// The counts so far.
    pub fn read(&self) -> AuthorizerStats {
        self.0.borrow().clone()
    }
}

/// How many checks a pod may have under way on all shards together. Clones share the limit.
#[derive(Clone, Debug)]
pub struct CheckSlots {
    cap: usize,
    free: Arc<Semaphore>,
}

/// A check under way. Its slot is returned when it is dropped.
pub(super) struct CheckSlot {
    _permit: OwnedSemaphorePermit,
}

impl CheckSlots {
    /// At most `cap` checks at a time.
    pub fn new(cap: usize) -> Self {
        Self {
            cap,
            free: Arc::new(Semaphore::new(cap.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Takes a slot.
    ///
    /// # Errors
    /// [`CheckError::OverCap`] if none is free.
    pub(super) fn take(&self) -> Result<CheckSlot, CheckError> {
        match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => Ok(CheckSlot { _permit: permit }),
            Err(_) => Err(CheckError::OverCap { cap: self.cap }),
        }
    }
}

impl Default for CheckSlots {
    /// At most 1,024 checks at a time.
    fn default() -> Self {
        Self::new(1_024)
    }
}
