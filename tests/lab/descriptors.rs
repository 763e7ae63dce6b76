//! How many files the lab's processes may open.

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// For floods of connections. What a login gives, 1,024 on most machines, is too few.
const ENOUGH: u64 = 20_000;

/// By which a command is run with what a login gives, and may raise it.
pub(crate) const AS_A_LOGIN: [&str; 2] = ["prlimit", "--nofile=1024:"];

/// Lets this process and those that it starts open enough.
pub(crate) fn raise() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let most = most.max(ENOUGH);
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
        .with_context(|| format!("RLIMIT_NOFILE cannot be raised to {most}"))
}
