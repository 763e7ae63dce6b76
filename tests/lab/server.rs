//! A server in a pod that reports what it sees of its callers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::Lab;
use crate::place::Place;
use crate::plan::Family;
use crate::pod::Pod;
use crate::process::Process;
use crate::wait::{SOON, eventually};

/// What the server does with a connection after it has recorded the caller.
#[derive(Clone, Copy, Debug)]
pub enum Mode {
    /// Answers each HTTP request with JSON of what it saw.
    Http,
    /// Sends back what it receives, until its caller ends.
    Echo,
    /// Sends what it saw on one line, before it receives anything; then like [`Mode::Echo`].
    Banner,
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Echo => "echo",
            Self::Banner => "banner",
        }
    }
}

/// A running `lab-server`.
pub struct LabServer {
    process: Process,
}

impl LabServer {
    /// Starts one in a pod, on a port of both its addresses, and waits until it listens.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn in_pod(lab: &Lab, pod: &Pod, mode: Mode, port: u16) -> Result<Self> {
        let addresses = Family::ALL.map(|family| (pod.ip(family), port).into());
        Self::start(lab, pod.place(), mode, &addresses)
    }

    /// Starts one and waits until it listens.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn start(lab: &Lab, place: &Place, mode: Mode, listen: &[SocketAddr]) -> Result<Self> {
        let mut command = place.command(tool("lab-server")?)?;
        command.arg(mode.word());
        command.args(listen.iter().map(SocketAddr::to_string));
        let mut process = Process::start(&mut command, &lab.new_log("lab-server")?)?;
        process.wait_for_line("a server listening", |line| {
            line.starts_with("listening").then_some(())
        })?;
        Ok(Self { process })
    }

    /// What it recorded about each connection so far: `accepted` (the peer, by `accept`), `peer` (by
    /// `getpeername`), `local` (by `getsockname`).
    pub fn connections(&self) -> Vec<Value> {
        let log = self.process.log();
        log.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Waits for a connection beyond the first `known` ones.
    ///
    /// # Errors
    ///
    /// If none comes.
    pub fn next_connection(&self, known: usize) -> Result<Value> {
        eventually(SOON, "a connection to the server", || {
            self.connections().into_iter().nth(known)
        })
    }
}

/// A program of this package, which cargo builds with the tests.
pub(crate) fn tool(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let beside = |directory: &Path| directory.join(name);
    let found = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(beside)
        .find(|path| path.is_file());
    let path = found.with_context(|| format!("{name} is not beside {}", own.display()))?;
    ensure!(path.is_absolute(), "{} is not absolute", path.display());
    Ok(path)
}
