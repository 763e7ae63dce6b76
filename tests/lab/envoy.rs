//! Envoy as a peer.

use std::fs;

use anyhow::Result;
use serde_json::Value;

use crate::lab::Lab;
use crate::peers::envoy_binary;
use crate::place::Place;
use crate::process::Process;

/// A running Envoy. Dropping it ends it.
pub struct Envoy {
    process: Process,
}

impl Envoy {
    /// Starts one somewhere, and waits until it serves.
    ///
    /// # Errors
    ///
    /// If it does not.
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

    /// Its whole output.
    pub fn log(&self) -> String {
        self.process.log()
    }
}
