//! How many files the lab's processes may open.

use anyhow::{Context, Result};

use ambit_daemon::descriptors::DescriptorLimit;

/// For floods of connections. What a login gives, 1,024 on most machines, is too few.
const ENOUGH: u64 = 20_000;

/// By which a command is run with what a login gives, and may raise it.
pub(crate) const AS_A_LOGIN: [&str; 2] = ["prlimit", "--nofile=1024:"];

/// Lets this process and those that it starts open enough.
pub(crate) fn raise() -> Result<()> {
    let limit = DescriptorLimit::read()?;
    let most = limit.hard.max(ENOUGH);
    DescriptorLimit::raise_to(most)
        .with_context(|| format!("RLIMIT_NOFILE cannot be raised to {most}"))?;
    Ok(())
}
