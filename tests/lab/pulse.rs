//! How long small requests wait.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::place::Place;
use crate::process::output_within;
use crate::server::tool;

/// The limit for all requests of a [`Pulse`].
const PATIENCE: Duration = Duration::from_secs(120);

/// Over which connections requests are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Connections {
    /// All over one.
    Kept,
    /// Each over a new one.
    New,
}

/// Small requests, one after another on each lane.
#[derive(Clone, Copy, Debug)]
pub struct Pulse {
    /// Over which connections.
    pub connections: Connections,
    /// The server.
    pub to: SocketAddr,
    /// How many lanes. An agent may carry each by another of its threads, over another tunnel.
    pub lanes: usize,
    /// How many requests on each.
    pub count: usize,
}

impl Pulse {
    /// Makes the requests from somewhere. Returns the median of the times that they waited for their answer, of the
    /// lane on which that is the longest.
    ///
    /// # Errors
    ///
    /// If one is not answered.
    pub fn longest_median(&self, from: &Place) -> Result<Duration> {
        let mut command = from.command(tool("lab-pulse")?)?;
        command.arg(match self.connections {
            Connections::Kept => "kept",
            Connections::New => "new",
        });
        command.arg(self.to.to_string()).arg("/kept/1024");
        command.args([self.lanes, self.count].map(|number| number.to_string()));
        let outcome = output_within(PATIENCE, &mut command)?;
        ensure!(outcome.status.success(), "lab-pulse: {}", outcome.stderr);
        let said: Value = serde_json::from_str(&outcome.stdout)?;
        let lanes = said["waited_us"].as_array().context("no times")?;
        let longest = lanes.iter().filter_map(median).max();
        longest.context("no request was made")
    }
}

fn median(waited: &Value) -> Option<Duration> {
    let waited = waited.as_array()?.iter();
    let mut waited: Vec<u64> = waited.filter_map(Value::as_u64).collect();
    waited.sort_unstable();
    let median = waited.get(waited.len() / 2)?;
    Some(Duration::from_micros(*median))
}
