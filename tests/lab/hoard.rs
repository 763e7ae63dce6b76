//! Servers and clients that let the agents hold what is sent.

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

/// The limit for all connections of a client to be opened or refused.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a server does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unhelpful {
    /// It reads everything and never answers.
    Silent,
    /// It answers without an end.
    Endless,
    /// It speaks HTTP/2, and its windows stay 0.
    Closed,
    /// None of this: it answers every request at once.
    Prompt,
}

/// What a client sends, and does not take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hoarded {
    /// A request with a long head on each connection.
    Heads,
    /// The same, but the end of the head does not come.
    Parts,
    /// A request on each connection, whose answer it does not read.
    Answers,
    /// Many requests on each connection of HTTP/2, with bodies.
    Streams,
    /// A request on each connection, which is answered.
    Idle(Http),
    /// A request on each connection, which is not answered.
    Waiting(Http),
}

/// The version of HTTP that a client speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Http {
    /// HTTP/1.1.
    One,
    /// HTTP/2.
    Two,
}

/// A `lab-hoard` that listens.
pub struct UnhelpfulServer {
    _process: Process,
}

/// A `lab-hoard` that calls; dropping it ends its connections.
pub struct Hoard {
    process: Process,
    _stdin: Option<ChildStdin>,
}

impl UnhelpfulServer {
    /// Starts one, and waits until it listens.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn start(lab: &Lab, place: &Place, what: Unhelpful, listen: SocketAddr) -> Result<Self> {
        let word = match what {
            Unhelpful::Silent => "silent",
            Unhelpful::Endless => "endless",
            Unhelpful::Closed => "closed",
            Unhelpful::Prompt => "prompt",
        };
        let mut command = place.command(tool("lab-hoard")?)?;
        command.args([word, &listen.to_string()]);
        let mut process = Process::start(&mut command, &lab.new_log("lab-hoard")?)?;
        process.wait_for_line("a server listening", |line| {
            line.starts_with("listening").then_some(())
        })?;
        Ok(Self { _process: process })
    }
}

impl Hoard {
    /// Opens this many connections.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(
        lab: &Lab,
        place: &Place,
        what: Hoarded,
        to: SocketAddr,
        connections: usize,
    ) -> Result<Self> {
        let word = match what {
            Hoarded::Heads => "heads",
            Hoarded::Parts => "parts",
            Hoarded::Answers => "unread",
            Hoarded::Streams => "streams",
            Hoarded::Idle(Http::One) => "idle",
            Hoarded::Idle(Http::Two) => "idle-2",
            Hoarded::Waiting(Http::One) => "waiting",
            Hoarded::Waiting(Http::Two) => "waiting-2",
        };
        let mut command = place.command(tool("lab-hoard")?)?;
        command
            .args([word, &to.to_string(), &connections.to_string()])
            .stdin(Stdio::piped());
        let mut process = Process::start(&mut command, &lab.new_log("lab-hoard")?)?;
        let stdin = process.take_stdin();
        Ok(Self {
            process,
            _stdin: stdin,
        })
    }

    /// Returns how many connections were opened and how many refused, once all of them are either.
    pub fn said(&self) -> Option<(u64, u64)> {
        let log = self.process.log();
        let complete = &log[..log.rfind('\n')?];
        let said: Value = serde_json::from_str(complete.lines().next()?).ok()?;
        Some((said["answered"].as_u64()?, said["refused"].as_u64()?))
    }

    /// Waits until all connections are opened or refused, and returns how many are each.
    ///
    /// # Errors
    ///
    /// If some are neither.
    pub fn outcome(&self) -> Result<(u64, u64)> {
        eventually(PATIENCE, "the connections of a hoard", || self.said())
            .with_context(|| self.process.log())
    }
}
