//! Running other programs.

use std::process::Command;

use anyhow::{Context, Result, bail};

/// Runs a command with our output streams.
///
/// # Errors
///
/// Where it cannot be started or does not succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command
        .status()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// A command as its user would type it.
pub(crate) fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Says what is done next.
pub(crate) fn say(step: &str, what: &str) {
    eprintln!("{step}: {what}");
}
