//! Bytes that something holds.

use crate::exhausted::{AccountExhausted, Owner};
use crate::pod::PodAccount;

/// Bytes that are in use, and given back on drop.
#[derive(Debug)]
#[must_use = "the bytes are given back on drop"]
pub struct Charge {
    pod: PodAccount,
    bytes: usize,
}

impl Charge {
    pub(crate) const fn nothing(pod: PodAccount) -> Self {
        Self { pod, bytes: 0 }
    }

    /// Returns how many bytes are charged.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes `more` bytes.
    ///
    /// # Errors
    /// [`AccountExhausted`] if there are not as many; the charge is what it was.
    pub fn grow(&mut self, more: usize) -> Result<(), AccountExhausted> {
        self.pod.draw(more)?;
        self.bytes += more;
        Ok(())
    }

    /// Takes at most `most` bytes for what could be done without, and returns how many: fewer, or none, if
    /// memory is not plentiful.
    pub fn extend(&mut self, most: usize) -> usize {
        let more = self.pod.draw_spare(most);
        self.bytes += more;
        more
    }

    /// Takes `more` bytes for what could be done without.
    ///
    /// # Errors
    /// [`AccountExhausted`] if memory is not plentiful; the charge is what it was.
    pub fn grow_spare(&mut self, more: usize) -> Result<(), AccountExhausted> {
        let grown = self.extend(more);
        if grown == more {
            return Ok(());
        }
        self.shrink(grown);
        Err(self.pod.refuse(Owner::Spare, more))
    }

    /// Gives back `fewer` bytes, or all if there are not as many.
    pub fn shrink(&mut self, fewer: usize) {
        let fewer = fewer.min(self.bytes);
        if fewer == 0 {
            return;
        }
        self.bytes -= fewer;
        self.pod.give_back(fewer);
    }

    /// Moves `bytes` into a charge of their own, or all if there are not as many.
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self {
            pod: self.pod.clone(),
            bytes,
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}
