//! How many file descriptors the agent may have: every connection that it carries takes one.

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Below it, what a pod may have is capped by descriptors first.
const AMPLE: u64 = 1 << 17;

/// Raises the limit to what this process is allowed, and returns it.
///
/// # Errors
/// Where the kernel does not tell or take it.
pub(super) fn raise() -> Result<u64> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("RLIMIT_NOFILE cannot be read")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("RLIMIT_NOFILE cannot be raised")?;
    if most < AMPLE {
        tracing::warn!(
            limit = most,
            "few file descriptors: pods are capped accordingly. Raise the agent's limit \
             (LimitNOFILE of systemd) to {AMPLE} or more"
        );
    }
    Ok(most)
}
