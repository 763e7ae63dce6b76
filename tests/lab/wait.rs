//! Waiting for something to become true, with a limit.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// For a change of configuration to have its effect, and for other things that must come soon.
pub const SOON: Duration = Duration::from_secs(20);

/// How many times slower than its hardware this machine is, if it is emulated: all limits are that much
/// longer.
const SLOWNESS: &str = "AMBIT_SLOWNESS";

/// Calls `look` until it finds something, and returns that.
///
/// # Errors
///
/// If it does not within `limit`, or the environment's `AMBIT_SLOWNESS` times that; `what` names it in
/// the error.
pub fn eventually<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T> {
    let limit = limit * slowness();
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if start.elapsed() > limit {
            bail!("{what}: not within {limit:?}");
        }
        sleep(PAUSE);
    }
}

/// How many times slower than its own hardware this machine is: 1, unless `AMBIT_SLOWNESS` says
/// otherwise.
pub fn slowness() -> u32 {
    let told = std::env::var(SLOWNESS);
    told.ok().and_then(|told| told.parse().ok()).unwrap_or(1)
}
