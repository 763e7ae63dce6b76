//! A caller that makes many calls.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::{ChildStdin, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::lab::Lab;
use crate::place::Place;
use crate::process::Process;
use crate::server::tool;

/// A `lab-dialer`: calls [`Mode::Banner`](crate::Mode::Banner) servers, one after the other.
pub struct Dialer {
    process: Process,
    stdin: ChildStdin,
    /// Calls whose results are known.
    done: usize,
    /// Calls that were begun since.
    begun: usize,
}

/// The result of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dialled {
    /// The address that was called.
    pub to: SocketAddr,
    /// The caller's own address on this connection.
    pub source: IpAddr,
    /// `answer`, or the name of an error, for example `ConnectionReset`.
    pub met: String,
}

impl Dialer {
    /// Starts one.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(lab: &Lab, place: &Place) -> Result<Self> {
        let mut command = place.command(tool("lab-dialer")?)?;
        command.stdin(Stdio::piped());
        let mut process = Process::start(&mut command, &lab.new_log("lab-dialer")?)?;
        let stdin = process.take_stdin().context("no standard input")?;
        Ok(Self {
            process,
            stdin,
            done: 0,
            begun: 0,
        })
    }

    /// Makes it call, and does not wait.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn begin(&mut self, to: SocketAddr) -> Result<()> {
        self.begun += 1;
        Ok(writeln!(self.stdin, "{to}")?)
    }

    /// Waits for all calls that were begun since the last wait.
    ///
    /// # Errors
    ///
    /// If one does not end.
    pub fn finish(&mut self) -> Result<Vec<Dialled>> {
        let (done, all) = (self.done, self.done + self.begun);
        let finished = self.process.wait_until("the end of the calls", |process| {
            let log = process.log();
            let calls: Vec<_> = log.lines().map_while(read).collect();
            (calls.len() >= all).then_some(calls)
        })?;
        (self.done, self.begun) = (all, 0);
        Ok(finished.into_iter().skip(done).collect())
    }
}

fn read(line: &str) -> Option<Dialled> {
    let said: Value = serde_json::from_str(line).ok()?;
    Some(Dialled {
        to: said["to"].as_str()?.parse().ok()?,
        source: said["source"].as_str()?.parse().ok()?,
        met: said["met"].as_str()?.to_owned(),
    })
}
