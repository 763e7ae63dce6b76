use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::CheckError;

/// How many checks one pod may have under way, over all shards. Clones share it.
#[derive(Clone, Debug)]
pub struct CheckSlots {
    cap: usize,
    free: Arc<Semaphore>,
}

/// One check under way, given back when dropped.
pub(super) struct Slot {
    _permit: OwnedSemaphorePermit,
}

impl CheckSlots {
    /// Room for `cap` checks.
    pub fn new(cap: usize) -> Self {
        Self {
            cap,
            free: Arc::new(Semaphore::new(cap.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Takes a slot.
    ///
    /// # Errors
    /// [`CheckError::OverCap`] where none is free.
    pub(super) fn take(&self) -> Result<Slot, CheckError> {
        match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => Ok(Slot { _permit: permit }),
            Err(_) => Err(CheckError::OverCap { cap: self.cap }),
        }
    }
}

impl Default for CheckSlots {
    /// 1,024 checks.
    fn default() -> Self {
        Self::new(1_024)
    }
}
