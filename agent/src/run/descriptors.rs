//! How many file descriptors the agent may have: every connection that it carries takes one.

use anyhow::{Context, Result};

use ambit_daemon::descriptors::DescriptorLimit;

/// Below it, what a pod may have is capped by descriptors first.
const AMPLE: u64 = 1 << 17;

/// Raises the limit to what this process is allowed, and returns what it has now.
///
/// # Errors
/// Where the kernel does not tell.
pub(super) fn raise() -> Result<u64> {
    let DescriptorLimit { soft, hard } =
        DescriptorLimit::read().context("RLIMIT_NOFILE cannot be read")?;
    let limit = match DescriptorLimit::raise_to(hard) {
        Ok(raised) => raised,
        Err(error) => {
            tracing::warn!(%error, "RLIMIT_NOFILE cannot be raised from {soft} to {hard}");
            soft
        }
    };
    if limit < AMPLE {
        tracing::warn!(
            limit,
            "few file descriptors: pods are capped accordingly. Raise the agent's limit \
             (LimitNOFILE of systemd) to {AMPLE} or more"
        );
    }
    Ok(limit)
}
