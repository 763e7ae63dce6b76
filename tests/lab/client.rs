//! Callers: curl, and a client that holds its connection open.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{ChildStdin, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::lab::Lab;
use crate::place::Place;
use crate::process::{Process, output};
use crate::server::tool;

/// The result of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The application answered with this.
    Answer(String),
    /// The connection was refused, or reset before an answer; the caller's message.
    Refusal(String),
    /// The request was refused with this status and body.
    Status(u16, String),
    /// Anything else, for example a time-out; never expected.
    Failure(String),
}

impl Reply {
    /// Whether the application answered.
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::Answer(_))
    }

    /// Whether the connection was refused.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refusal(_))
    }

    /// Whether the request was denied by policy.
    pub fn is_denial(&self) -> bool {
        matches!(self, Self::Status(403, body) if body == "RBAC: access denied")
    }
}

/// Gets a URL from somewhere, with curl.
///
/// # Errors
///
/// If curl cannot be run.
pub fn get(place: &Place, url: &str) -> Result<Reply> {
    request(place, &[url])
}

/// Makes a request from somewhere, with curl and these arguments.
///
/// # Errors
///
/// If curl cannot be run.
pub fn request(place: &Place, arguments: &[&str]) -> Result<Reply> {
    let mut command = place.command("curl")?;
    command.args(["--silent", "--show-error", "--verbose"]);
    command.args(["--write-out", "\n%{http_code}", "--path-as-is"]);
    command
        .args(["--noproxy", "*", "--max-time", "10"])
        .args(arguments);
    let outcome = output(&mut command)?;
    if outcome.status.success() {
        let (body, status) = outcome.stdout.rsplit_once('\n').unwrap_or_default();
        let body = body.trim().to_owned();
        return Ok(match status.parse().context("curl prints no status")? {
            ..400 => Reply::Answer(body),
            status => Reply::Status(status, body),
        });
    }
    let refusal = ["Connection refused", "Connection reset by peer"]
        .into_iter()
        .find(|words| outcome.stderr.contains(words));
    Ok(match refusal {
        Some(words) => Reply::Refusal(words.to_owned()),
        None => Reply::Failure(outcome.stderr.lines().last().unwrap_or_default().to_owned()),
    })
}

/// Gets the root of an HTTP server.
///
/// # Errors
///
/// If curl cannot be run.
pub fn get_from(place: &Place, server: SocketAddr) -> Result<Reply> {
    get(place, &format!("http://{server}/"))
}

/// A `lab-client`: one TCP connection, held open until it is dropped.
pub struct HeldConnection {
    process: Process,
    stdin: Option<ChildStdin>,
    opened: Value,
    /// Lines of its log that [`Self::wait_for`] and [`Self::echo`] have passed.
    read: usize,
}

impl HeldConnection {
    /// Dials from somewhere and waits for the connection.
    ///
    /// # Errors
    ///
    /// If it is refused, or times out.
    pub fn open(lab: &Lab, place: &Place, to: SocketAddr) -> Result<Self> {
        let mut command = place.command(tool("lab-client")?)?;
        command.arg(to.to_string()).stdin(Stdio::piped());
        let mut process = Process::start(&mut command, &lab.new_log("lab-client")?)?;
        let stdin = process.take_stdin();
        let opened = process.wait_for_line("a connection", |line| parse(line, "opened"))?;
        Ok(Self {
            process,
            stdin,
            opened,
            read: 0,
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
    /// If it does not.
    pub fn echo(&mut self, line: &str) -> Result<()> {
        self.send(line)?;
        self.wait_for_received("an echo", |received| received == line)
    }

    /// Sends a line.
    ///
    /// # Errors
    ///
    /// If the client has ended.
    pub fn send(&mut self, line: &str) -> Result<()> {
        let stdin = self
            .stdin
            .as_mut()
            .context("the connection is half-closed")?;
        Ok(writeln!(stdin, "{line}")?)
    }

    /// Waits for a line that the server sends.
    ///
    /// # Errors
    ///
    /// If none comes.
    pub fn received(&mut self) -> Result<Value> {
        self.process
            .wait_for_line("a line from the server", |said| parse(said, "received"))
    }

    /// Waits for a line after those that have arrived.
    ///
    /// # Errors
    ///
    /// If none comes.
    pub fn more(&mut self) -> Result<()> {
        let known = self.process.log().lines().count();
        self.process
            .wait_until("another line from the server", |process| {
                (process.log().lines().count() > known).then_some(())
            })
    }

    /// Waits for a line that contains this, after all lines found in this way before.
    ///
    /// # Errors
    ///
    /// If none comes.
    pub fn wait_for(&mut self, part: &str) -> Result<()> {
        self.wait_for_received("a line from the server", |received| received.contains(part))
    }

    /// Waits for a line after all that were waited for in this way.
    fn wait_for_received(&mut self, what: &str, is_it: impl Fn(&str) -> bool) -> Result<()> {
        let read = self.read;
        let at = self.process.wait_until(what, |process| {
            let log = process.log();
            let complete = &log[..log.rfind('\n')?];
            let mut lines = complete.lines().enumerate().skip(read);
            lines.find_map(|(index, line)| {
                let text = parse(line, "received")?;
                is_it(text.as_str()?).then_some(index)
            })
        })?;
        self.read = at + 1;
        Ok(())
    }

    /// Ends the sending direction; the server's data still arrives.
    pub fn half_close(&mut self) {
        self.stdin = None;
    }

    /// Waits until the other side ends the connection, and returns how: `closed`, or the name of an
    /// error, for example `ConnectionReset`.
    ///
    /// # Errors
    ///
    /// If it stays open.
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
