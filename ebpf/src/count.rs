//! A counter per outcome.

use ambit_common::Counter;

use crate::maps::COUNTS;

/// Counts an outcome.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTS.get_ptr_mut(counter as u32) {
        // SAFETY: the slot belongs to this CPU, and programs do not preempt one another on it in
        // a way that could do more than lose one count.
        unsafe { *value += 1 };
    }
}
