//! Checks that no input from outside costs more than linear time: the cost of an input is compared with
//! the cost of the same input repeated.
//!
//! The agent counts the steps of its inner loops (`ambit_input::work`), which do not depend on the
//! machine. The thread's CPU time is measured for the work in dependencies, such as the YAML reader. A
//! time counts only if several measurements agree.

use std::time::Duration;

use ambit_input::work::steps_of;

/// Bytes to which an input is repeated for the first measurement.
const SMALL: usize = 2 << 10;

/// How many times longer the second input is.
const TIMES: usize = 8;

/// The most steps for each byte. Quadratic work takes at least [`SMALL`] times [`TIMES`].
const STEPS: u64 = 512;

/// Steps that are allowed for any input.
const ANYWAY: u64 = 64 << 10;

/// More than [`TIMES`] times [`SLACK`] as much time is too much. Quadratic work takes [`TIMES`] times
/// [`TIMES`].
const SLACK: u32 = 3;

/// Differences below this are noise.
const NOTICEABLE: Duration = Duration::from_millis(20);

/// How many measurements have to show too much time.
const TRIES: usize = 4;

/// Ensures that `work` takes at most linear time in the length of a repeated input.
pub fn ensure_linear<T>(input: &[u8], mut work: impl FnMut(&[u8]) -> T) {
    if input.is_empty() {
        return;
    }
    let count = SMALL.div_ceil(input.len());
    let (small, large) = (input.repeat(count), input.repeat(count * TIMES));
    let (_, steps) = steps_of(|| work(&large));
    let most = STEPS * large.len() as u64 + ANYWAY;
    assert!(steps <= most, "{steps} steps for {} bytes", large.len());
    let is_too_much = |work: &mut dyn FnMut(&[u8])| {
        let took = time_of(|| work(&large));
        took > NOTICEABLE && took > time_of(|| work(&small)) * TIMES as u32 * SLACK
    };
    let mut work = |bytes: &[u8]| drop(work(bytes));
    let is_superlinear = (0..TRIES).all(|_| is_too_much(&mut work));
    assert!(
        !is_superlinear,
        "{TIMES} times the input takes far longer than that"
    );
}

/// The same for strings.
pub fn ensure_linear_text<T>(input: &str, mut work: impl FnMut(&str) -> T) {
    ensure_linear(input.as_bytes(), |bytes| {
        work(std::str::from_utf8(bytes).expect("a repeated string is a string"))
    });
}

/// Returns the CPU time that this thread spends on `work`.
fn time_of(work: impl FnOnce()) -> Duration {
    let before = thread_time();
    work();
    thread_time().saturating_sub(before)
}

fn thread_time() -> Duration {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid `timespec`, which the system call writes to.
    let told = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
    assert_eq!(told, 0, "the clock of a thread");
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}
