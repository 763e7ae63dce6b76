//! Very many connections from one pod to another.

use std::net::SocketAddr;
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::lab::Lab;
use crate::place::Place;
use crate::process::Process;
use crate::server::tool;
use crate::wait::eventually;

/// The limit for all connections of a swarm to be answered or refused.
const PATIENCE: Duration = Duration::from_secs(90);

/// A `lab-swarm` that answers.
pub struct SwarmServer {
    _process: Process,
}

impl SwarmServer {
    /// Starts one, which sends back what it gets, and waits until it listens.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn start(lab: &Lab, place: &Place, listen: SocketAddr) -> Result<Self> {
        let mut command = place.command(tool("lab-swarm")?)?;
        command.args(["serve", &listen.to_string()]);
        let mut process = Process::start(&mut command, &lab.new_log("lab-swarm")?)?;
        process.wait_for_line("a server listening", |line| {
            line.starts_with("listening").then_some(())
        })?;
        Ok(Self { _process: process })
    }
}

/// A `lab-swarm` that calls; dropping it ends its connections.
pub struct Swarm {
    process: Process,
    _stdin: Option<ChildStdin>,
}

impl Swarm {
    /// Opens this many connections and holds those that are answered.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn hold(lab: &Lab, place: &Place, to: SocketAddr, connections: usize) -> Result<Self> {
        Self::start(
            lab,
            place,
            ["hold", &to.to_string(), &connections.to_string()],
        )
    }

    /// Opens connections one after another on sixteen lanes for some time, each closed by the
    /// client after an answer.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn churn(lab: &Lab, place: &Place, to: SocketAddr, time: Duration) -> Result<Self> {
        let seconds = time.as_secs().to_string();
        Self::start(lab, place, ["churn", &to.to_string(), &seconds])
    }

    /// Calls repeatedly, and measures how long it was not answered.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn watch(lab: &Lab, place: &Place, to: SocketAddr, time: Duration) -> Result<Self> {
        let seconds = time.as_secs().to_string();
        Self::start(lab, place, ["watch", &to.to_string(), &seconds])
    }

    /// Opens connections on one thread for some time, sends 1 KiB on each and closes it.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn knock(lab: &Lab, place: &Place, to: SocketAddr, time: Duration) -> Result<Self> {
        Self::start(lab, place, ["knock", &to.to_string(), &seconds(time)])
    }

    /// Sends small messages on many connections for some time, each after the answer to the last.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn chatter(lab: &Lab, place: &Place, to: SocketAddr, time: Duration) -> Result<Self> {
        Self::start(lab, place, ["chatter", &to.to_string(), &seconds(time)])
    }

    /// Sends HTTP/1 requests with long heads on several connections for some time.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn heads(lab: &Lab, place: &Place, to: SocketAddr, time: Duration) -> Result<Self> {
        Self::start(lab, place, ["heads", &to.to_string(), &seconds(time)])
    }

    fn start(lab: &Lab, place: &Place, arguments: [&str; 3]) -> Result<Self> {
        let mut command = place.command(tool("lab-swarm")?)?;
        command.args(arguments).stdin(Stdio::piped());
        let mut process = Process::start(&mut command, &lab.new_log("lab-swarm")?)?;
        let stdin = process.take_stdin();
        Ok(Self {
            process,
            _stdin: stdin,
        })
    }

    /// Waits until all connections are answered or refused, and returns how many are each.
    ///
    /// # Errors
    ///
    /// If some are neither.
    pub fn outcome(&mut self) -> Result<(u64, u64)> {
        let said = self.said()?;
        Ok((number(&said, "answered")?, number(&said, "refused")?))
    }

    /// Waits for the end of a watch. Returns the longest time without an answer.
    ///
    /// # Errors
    ///
    /// If it does not end.
    pub fn longest_silence(&mut self) -> Result<Duration> {
        number(&self.said()?, "longest_silence_ms").map(Duration::from_millis)
    }

    /// Waits for the end of a watch. Returns the median duration of its calls.
    ///
    /// # Errors
    ///
    /// If it does not end, or none was answered.
    pub fn median(&mut self) -> Result<Duration> {
        number(&self.said()?, "median_us").map(Duration::from_micros)
    }

    fn said(&mut self) -> Result<Value> {
        eventually(PATIENCE, "the end of a swarm's calls", || {
            let log = self.process.log();
            let complete = &log[..log.rfind('\n')?];
            serde_json::from_str::<Value>(complete.lines().next()?).ok()
        })
    }
}

fn seconds(time: Duration) -> String {
    time.as_secs().to_string()
}

fn number(said: &Value, name: &str) -> Result<u64> {
    said[name].as_u64().with_context(|| format!("no {name}"))
}
