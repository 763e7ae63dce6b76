//! Input costs at most linear time: the cost of an input is compared with the cost of the same input
//! repeated many times.
//!
//! The agent counts the steps of its inner loops (`ambit_input::work`), which do not depend on the
//! machine. The thread's CPU time is measured for work that is done elsewhere, for example in the YAML
//! reader; it counts only if several measurements agree.

use std::time::Duration;

use ambit_input::work::steps_of;

/// Bytes to which an input is repeated at first.
const SMALL: usize = 2 << 10;

/// How many times as long the second input is.
const TIMES: usize = 8;

/// Steps that a byte may cost. Quadratic work costs at least [`SMALL`] times [`TIMES`].
const STEPS: u64 = 512;

/// Steps that do not depend on the input.
const ANYWAY: u64 = 64 << 10;

/// How far the time may exceed [`TIMES`] times the time of the input. Quadratic work takes [`TIMES`]
/// times more.
const SLACK: u32 = 3;

/// Shorter times differ by chance.
const NOTICEABLE: Duration = Duration::from_millis(20);

/// How many measurements must exceed the limit.
const TRIES: usize = 4;

/// Ensures that `work` on an input repeated costs no more than linear in its length.
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
        work(std::str::from_utf8(bytes).expect("whole texts"))
    });
}

/// The time that this thread spends.
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
    // SAFETY: `now` is valid memory for what the system call writes.
    let told = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
    assert_eq!(told, 0, "the clock of a thread");
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}
