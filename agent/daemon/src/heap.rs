//! Gives memory back to the system that the process no longer needs.
//!
//! glibc gives back what is free at the end of a heap. What is free below something that is in use stays with
//! the process: all that a start took for a moment (tens of MiB to read the kernel's types), and all that a
//! flood took if one small allocation outlives it.

use std::path::Path;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(5);

/// What has to be idle for a trim, in bytes: while it trims, threads that allocate wait, for less than a
/// millisecond for each MiB.
const WORTH: usize = 4 << 20;

/// Gives back what is idle, until the process ends.
pub async fn give_back() {
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut trims = Trims::default();
    loop {
        period.tick().await;
        let Some(idle) = idle() else { return };
        if trims.is_worth_it(idle) {
            trim();
            let left = self::idle().unwrap_or(0);
            tracing::debug!(idle, left, "the heap was trimmed");
            trims.did(left);
        }
    }
}

/// Decides when to trim.
#[derive(Default)]
struct Trims {
    /// What a trim could not give back: parts of pages.
    stuck: usize,
}

impl Trims {
    fn is_worth_it(&mut self, idle: usize) -> bool {
        self.stuck = self.stuck.min(idle);
        idle - self.stuck >= WORTH
    }

    fn did(&mut self, left: usize) {
        self.stuck = left;
    }
}

/// Returns how many bytes of memory are resident and not allocated. `None` if the kernel does not tell.
fn idle() -> Option<usize> {
    Some(anonymous()?.saturating_sub(allocated()))
}

/// Returns the resident bytes that are no file's (`proc_pid_statm(5)`).
fn anonymous() -> Option<usize> {
    let text = std::fs::read_to_string(Path::new("/proc/self/statm")).ok()?;
    let mut pages = text.split(' ').skip(1).map(str::parse::<usize>);
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    // SAFETY: sysconf reads a constant.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    resident
        .saturating_sub(shared)
        .checked_mul(usize::try_from(size).ok()?)
}

fn allocated() -> usize {
    // SAFETY: mallinfo2 takes no argument and locks each arena that it reads.
    let heap = unsafe { libc::mallinfo2() };
    heap.uordblks.saturating_add(heap.hblkhd)
}

fn trim() {
    // SAFETY: malloc_trim locks each arena, and gives back only pages that no allocation touches.
    let _ = unsafe { libc::malloc_trim(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_survivor_keeps_from_the_system_is_given_back() {
        const NUMBER: usize = 100_000;
        let mut flood: Vec<Box<[u8; 1024]>> = (0..NUMBER).map(|_| Box::new([1; 1024])).collect();
        let _survivor = flood.pop();
        drop(flood);
        let before = anonymous().expect("statm is readable");
        assert!(
            idle().expect("statm is readable") > NUMBER * 1000,
            "glibc keeps it"
        );
        trim();
        let after = anonymous().expect("statm is readable");
        assert!(after + NUMBER * 900 < before, "{before} became {after}");
    }

    #[test]
    fn a_trim_that_gives_nothing_back_is_not_repeated() {
        let mut trims = Trims::default();
        assert!(!trims.is_worth_it(WORTH - 1));
        assert!(trims.is_worth_it(3 * WORTH));
        trims.did(2 * WORTH);
        assert!(!trims.is_worth_it(2 * WORTH), "that much is stuck");
        assert!(trims.is_worth_it(3 * WORTH), "that much more is not");
        trims.did(2 * WORTH);
        assert!(!trims.is_worth_it(WORTH), "less is stuck now");
        assert!(trims.is_worth_it(2 * WORTH));
    }
}
