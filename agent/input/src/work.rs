//! Counts the steps that processing input takes, so that tests and fuzz targets can compare an input
//! with the same input repeated. Only they have the counter. In the agent nothing is counted.
//!
//! A step is about one byte read, written, moved or compared. Steps are counted where a quadratic
//! algorithm would spend them: in inner loops, insertions, and comparisons of lists.

#[cfg(any(test, fuzzing, feature = "testing"))]
use std::cell::Cell;

#[cfg(any(test, fuzzing, feature = "testing"))]
thread_local! {
    static STEPS: Cell<u64> = const { Cell::new(0) };
}

/// Adds steps to the count.
#[inline]
pub fn spend(steps: usize) {
    #[cfg(any(test, fuzzing, feature = "testing"))]
    STEPS.with(|count| count.set(count.get() + steps as u64));
    let _ = steps;
}

/// Calls `work`, and returns how many steps it took on this thread: 0 if steps are not counted.
pub fn steps_of<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = steps();
    let done = work();
    (done, steps() - before)
}

fn steps() -> u64 {
    #[cfg(any(test, fuzzing, feature = "testing"))]
    return STEPS.with(Cell::get);
    #[cfg(not(any(test, fuzzing, feature = "testing")))]
    0
}

/// The most steps that twice an input may take, given the steps of the input itself: twice as many, and
/// a little for rounding.
pub const fn linear(steps: u64) -> u64 {
    2 * steps + steps / 4 + 64
}
