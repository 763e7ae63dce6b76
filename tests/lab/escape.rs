//! Unusual ways to connect.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::bpf_call;
use crate::lab::Lab;
use crate::place::Place;
use crate::process::{Process, output};
use crate::server::tool;

/// A way for a process to get a TCP connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Way {
    /// connect(2).
    Plain,
    /// SO_BINDTODEVICE.
    Device(&'static str),
    /// SO_MARK.
    Mark(u32),
    /// A source that another has, with IP_TRANSPARENT.
    Source(SocketAddr),
    /// Multipath TCP.
    Mptcp,
    /// An IPv4 address in an IPv6 socket.
    Mapped,
    /// Data in the SYN.
    FastOpen,
    /// A socket that was connected to this address before, and disconnected (AF_UNSPEC).
    Reconnect(SocketAddr),
    /// A socket that two threads connect and disconnect, one of them to this address.
    Race(SocketAddr),
    /// A datagram.
    Udp,
    /// io_uring's connect.
    Ring,
    /// A handmade SYN, from a source that the process may or may not have: the answer is what the other
    /// end sends to that source, if it arrives here.
    Raw(SocketAddr),
    /// The same from a packet socket, which bypasses the routing table and its hooks.
    Packet(SocketAddr),
}

impl Way {
    fn words(&self) -> (&'static str, String) {
        match self {
            Self::Plain => ("plain", String::new()),
            Self::Device(name) => ("device", (*name).to_owned()),
            Self::Mark(mark) => ("mark", mark.to_string()),
            Self::Source(source) => ("source", source.to_string()),
            Self::Mptcp => ("mptcp", String::new()),
            Self::Mapped => ("mapped", String::new()),
            Self::FastOpen => ("fast-open", String::new()),
            Self::Reconnect(elsewhere) => ("reconnect", elsewhere.to_string()),
            Self::Race(elsewhere) => ("race", elsewhere.to_string()),
            Self::Udp => ("udp", String::new()),
            Self::Ring => ("ring", String::new()),
            Self::Raw(source) => ("raw", source.to_string()),
            Self::Packet(source) => ("packet", source.to_string()),
        }
    }

    /// The word in the first line of a request made in this way.
    pub fn mark(&self) -> String {
        format!("GET /{} ", self.words().0)
    }

    /// Connects in this way to a `lab-server` in HTTP mode: its answer, or why there is none. A race gives
    /// a list of answers.
    ///
    /// # Errors
    ///
    /// If the client cannot be run.
    pub fn go(&self, from: &Place, to: SocketAddr) -> Result<Result<Value, String>> {
        let (way, argument) = self.words();
        let mut command = from.command(tool("lab-escape")?)?;
        let outcome = output(command.args([way, &to.to_string(), &argument]))?;
        ensure!(outcome.status.success(), "lab-escape: {}", outcome.stderr);
        let said: Value = serde_json::from_str(&outcome.stdout)?;
        Ok(match said["failure"].as_str() {
            Some(failure) => Err(failure.to_owned()),
            None => Ok(said["answer"].clone()),
        })
    }
}

/// SYNs with a source that is not the sender's, from a packet socket.
#[derive(Clone, Debug)]
pub struct ForgedSyns<'a> {
    /// The device that they leave by, to the neighbour there that the sender has spoken to.
    pub device: &'a str,
    /// The source of the first one; each further one is from the next port.
    pub source: SocketAddr,
    /// The destination.
    pub to: SocketAddr,
    /// How many.
    pub count: u16,
    /// The data in each of them, as for fast open.
    pub data: &'a str,
}

impl ForgedSyns<'_> {
    /// Sends them, and does not wait for an answer.
    ///
    /// # Errors
    ///
    /// If they cannot be sent.
    pub fn send(&self, from: &Place) -> Result<()> {
        let mut command = from.command(tool("lab-escape")?)?;
        let (to, source) = (self.to.to_string(), self.source.to_string());
        let count = self.count.to_string();
        let outcome =
            output(command.args(["forge", &to, self.device, &source, &count, self.data]))?;
        ensure!(outcome.status.success(), "lab-escape: {}", outcome.stderr);
        Ok(())
    }
}

/// Accepts one connection by io_uring, while `calls` makes it: the address that it was given for its
/// caller.
///
/// # Errors
///
/// If it cannot be run, or `calls` fails.
pub fn accept_by_ring(
    lab: &Lab,
    place: &Place,
    listen: SocketAddr,
    calls: impl FnOnce() -> Result<()>,
) -> Result<SocketAddr> {
    let mut command = place.command(tool("lab-escape")?)?;
    command.args(["accept", &listen.to_string()]);
    let mut server = Process::start(&mut command, &lab.new_log("lab-escape")?)?;
    server.wait_for_line("a server listening", |line| {
        (line == "listening").then_some(())
    })?;
    calls()?;
    server.wait_for_line("a connection", |line| {
        line.strip_prefix("accepted ")?.parse().ok()
    })
}

/// What a process can access that looks for kernel programs, links and maps, by number and below a
/// directory: counts by kind. `as_whom` is a command that ends by becoming what follows it.
///
/// # Errors
///
/// If it cannot be run.
pub fn meddle(from: &Place, as_whom: &[&str], pins: &Path) -> Result<Value> {
    let tool = tool("lab-escape")?;
    let mut command = match as_whom {
        [] => from.command(tool)?,
        [program, arguments @ ..] => {
            let mut command = from.command(program)?;
            command.args(arguments).arg(tool);
            command
        }
    };
    // Only root may iterate over the ids; any process can try each of them.
    let ids = bpf_call::last_id()?;
    let outcome = output(command.arg("meddle").arg(pins).arg(ids.to_string()))?;
    ensure!(outcome.status.success(), "meddling: {}", outcome.stderr);
    Ok(serde_json::from_str(&outcome.stdout)?)
}
