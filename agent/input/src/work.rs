//! Counts the steps that input from outside makes this program take, so that tests and fuzz targets can
//! hold an input against the same input twice over. Only they have the counter; elsewhere nothing is
//! counted.
//!
//! A step is about a byte read, written, moved or compared. What is counted is where the steps of a
//! quadratic algorithm would be: inner loops, insertions, and comparisons of lists.

#[cfg(any(test, fuzzing, feature = "testing"))]
use std::cell::Cell;

#[cfg(any(test, fuzzing, feature = "testing"))]
thread_local! {
    static STEPS: Cell<u64> = const { Cell::new(0) };
}

/// Counts steps.
#[inline]
pub fn spend(steps: usize) {
    #[cfg(any(test, fuzzing, feature = "testing"))]
    STEPS.with(|count| count.set(count.get() + steps as u64));
    let _ = steps;
}

/// Runs something, and returns how many steps it took on this thread; none if they are not counted.
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

/// The most that twice the input may cost, in steps: twice as much, and a little for what is rounded.
pub const fn linear(steps: u64) -> u64 {
    2 * steps + steps / 4 + 64
}
