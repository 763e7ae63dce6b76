//! `cargo xtask miri`: the memory that kernel and userspace share, interpreted.

use std::process::Command;

use anyhow::Result;

use crate::process::run as run_command;
use crate::workspace;

/// Runs the unit tests of `common`.
///
/// # Errors
///
/// If one fails, or Miri is not installed.
pub(crate) fn run() -> Result<()> {
    run_command(
        Command::new("cargo")
            .current_dir(workspace::root())
            .args(["+nightly", "miri", "test", "--package", "ambit-common"])
            .args(["--features", "maps"]),
    )
}
