//! Waiting until no kernel program can still use what has just been taken away from it.
//!
//! A program of the hooks that Ambit uses runs within one RCU read-side section, so one that has looked
//! something up has ended when an RCU grace period has passed. Since 4.20 the kernel waits for one in
//! bpf(2) itself whenever a map within a map is set, for exactly this purpose
//! (`maybe_wait_bpf_programs`): afterwards no program uses what was there before.

use std::os::fd::{AsFd, OwnedFd};

use crate::DatapathError;
use crate::kernel::bpf::{create_array, create_array_of_maps, set_inner_map};

/// A moment in the order of changes, by which [`Grace`] tells whether a grace period has passed since.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct GraceEpoch(u64);

impl GraceEpoch {
    /// Before everything: no program can hold what was taken away then.
    pub(crate) const PASSED: Self = Self(0);
}

/// Waits for programs that may hold what was changed.
#[derive(Debug)]
pub(crate) struct Grace {
    outer: OwnedFd,
    inner: OwnedFd,
    now: GraceEpoch,
    /// The last moment since which a grace period has passed.
    passed: GraceEpoch,
}

impl Grace {
    /// # Errors
    /// [`DatapathError`] where its two maps, which nothing else uses, cannot be made.
    pub(crate) fn new() -> Result<Self, DatapathError> {
        let inner = create_array().map_err(DatapathError::Grace)?;
        let outer = create_array_of_maps(inner.as_fd()).map_err(DatapathError::Grace)?;
        Ok(Self {
            outer,
            inner,
            now: GraceEpoch::PASSED,
            passed: GraceEpoch::PASSED,
        })
    }

    /// Takes note that something was taken away from the programs just now.
    pub(crate) fn note(&mut self) -> GraceEpoch {
        self.now.0 += 1;
        self.now
    }

    /// Returns when no program can hold any more what was taken away at `since`: at once, if that is
    /// certain already. It takes a few hundredths of a second otherwise.
    ///
    /// # Errors
    /// [`DatapathError::Grace`]: a program may still hold it.
    pub(crate) fn wait(&mut self, since: GraceEpoch) -> Result<(), DatapathError> {
        if since > self.passed {
            set_inner_map(self.outer.as_fd(), self.inner.as_fd()).map_err(DatapathError::Grace)?;
            self.passed = self.now;
        }
        Ok(())
    }
}
