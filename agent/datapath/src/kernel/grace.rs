//! Waits until no kernel program can still use what was taken away from it.
//!
//! On the hooks that Ambit uses, a program runs within one RCU read-side section. So a program that has looked
//! something up has ended once an RCU grace period has passed. Since Linux 4.20, bpf(2) waits for a grace
//! period whenever a map within a map is set (`maybe_wait_bpf_programs`), for exactly this purpose.

use std::os::fd::{AsFd, OwnedFd};

use crate::DatapathError;
use crate::kernel::bpf::{create_array, create_array_of_maps, set_inner_map};

/// The position of a change in the order of changes. [`Grace`] knows whether a grace period has passed since.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct GraceEpoch(u64);

impl GraceEpoch {
    /// Before all changes: no program can hold what was taken away then.
    pub(crate) const PASSED: Self = Self(0);
}

/// Waits for programs that may hold what was changed.
#[derive(Debug)]
pub(crate) struct Grace {
    outer: OwnedFd,
    inner: OwnedFd,
    now: GraceEpoch,
    /// The last change since which a grace period has passed.
    passed: GraceEpoch,
}

impl Grace {
    /// # Errors
    /// [`DatapathError::Grace`] if its two maps, which nothing else uses, cannot be made.
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

    /// Notes that something has just been taken away from the programs.
    pub(crate) fn note(&mut self) -> GraceEpoch {
        self.now.0 += 1;
        self.now
    }

    /// Returns when no program can hold any more what was taken away at `since`: immediately if that is
    /// already certain, otherwise within a few hundredths of a second.
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
