//! Callers: curl, and a client that holds its connection open.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{ChildStdin, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::lab::Lab;
use crate::place::Place;
use crate::process::{Outcome, Process, output};
use crate::server::tool;

/// Calls a URL from somewhere, with curl, for at most ten seconds. A failure of the call is an
/// [`Outcome`] too.
///
/// # Errors
///
/// Where curl cannot be run.
pub fn curl(place: &Place, arguments: &[&str]) -> Result<Outcome> {
    let mut command = place.command("curl")?;
    command.args([
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        "--max-time",
        "10",
    ]);
    output(command.args(arguments))
}

/// A `lab-client`: one TCP connection, held open until it is dropped.
pub struct HeldConnection {
    process: Process,
    stdin: ChildStdin,
    opened: Value,
}

impl HeldConnection {
    /// Dials from somewhere and waits for the connection. `name` names its log, and is unique in
    /// the lab.
    ///
    /// # Errors
    ///
    /// Where it is refused, or times out.
    pub fn open(lab: &Lab, place: &Place, name: &str, to: SocketAddr) -> Result<Self> {
        let mut command = place.command(tool("lab-client")?)?;
        command.arg(to.to_string()).stdin(Stdio::piped());
        let mut process = Process::start(&mut command, &lab.log(name))?;
        let stdin = process.take_stdin().context("no pipe to the client")?;
        let opened = process.wait_for_line("a connection", |line| parse(line, "opened"))?;
        Ok(Self {
            process,
            stdin,
            opened,
        })
    }

    /// What its application sees: `local` (by `getsockname`), `peer` (by `getpeername`).
    pub fn opened(&self) -> &Value {
        &self.opened
    }

    /// Sends a line and waits until it comes back.
    ///
    /// # Errors
    ///
    /// Where it does not.
    pub fn echo(&mut self, line: &str) -> Result<()> {
        self.send(line)?;
        let awaited = Value::from(line);
        self.process.wait_for_line("an echo", |said| {
            (parse(said, "received")? == awaited).then_some(())
        })
    }

    /// Sends a line.
    ///
    /// # Errors
    ///
    /// Where the client has ended.
    pub fn send(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.stdin, "{line}")?)
    }

    /// Waits until the connection ends by the other side, and says how: `closed`, or an error's
    /// name such as `ConnectionReset`.
    ///
    /// # Errors
    ///
    /// Where it stays open.
    pub fn end(&mut self) -> Result<String> {
        self.process
            .wait_for_line("the end of a connection", |line| {
                Some(parse(line, "ended")?.as_str()?.to_owned())
            })
    }
}

fn parse(line: &str, field: &str) -> Option<Value> {
    let said: Value = serde_json::from_str(line).ok()?;
    said.get(field).cloned()
}
