//! Plain TCP relays.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use anyhow::Result;

use crate::lab::Lab;
use crate::place::Place;
use crate::process::Process;
use crate::server::tool;

/// The most threads of a relay: as many as an agent has shards.
const MOST_THREADS: usize = 4;

/// The relay that cargo built with the tests, without optimization.
///
/// # Errors
///
/// If there is none.
pub fn relay_binary() -> Result<PathBuf> {
    tool("lab-relay")
}

/// A relay between addresses.
pub struct Relay<'a> {
    /// Its program, a `lab-relay`.
    pub program: &'a Path,
    /// Where it listens, and where it connects to for each connection that it accepts there.
    pub routes: &'a [(SocketAddr, SocketAddr)],
}

impl Relay<'_> {
    /// Starts it somewhere and waits until it listens.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn start(&self, lab: &Lab, place: &Place) -> Result<Process> {
        let mut command = place.command(self.program)?;
        let threads = available_parallelism()?.get().min(MOST_THREADS);
        command.arg(threads.to_string());
        let routes = self.routes.iter();
        command.args(routes.map(|(from, to)| format!("{from}={to}")));
        let mut relay = Process::start(&mut command, &lab.new_log("lab-relay")?)?;
        relay.wait_for_line("a relay listening", |line| {
            (line == "listening").then_some(())
        })?;
        Ok(relay)
    }
}
