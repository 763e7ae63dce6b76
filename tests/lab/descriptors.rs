//! The limit of file descriptors of the lab's processes.

use anyhow::{Context, Result};

use ambit_daemon::descriptors::DescriptorLimit;

/// Enough for floods of connections. A login's limit, 1,024 on most machines, is too low.
const ENOUGH: u64 = 20_000;

/// Runs a command with a login's limit, which it may raise.
pub(crate) const AS_A_LOGIN: [&str; 2] = ["prlimit", "--nofile=1024:"];

/// Raises the limit of this process and of those that it starts.
pub(crate) fn raise() -> Result<()> {
    let limit = DescriptorLimit::read()?;
    let most = limit.hard.max(ENOUGH);
    DescriptorLimit::raise_to(most)
        .with_context(|| format!("RLIMIT_NOFILE cannot be raised to {most}"))?;
    Ok(())
}
