//! Unusual ways to connect.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::place::Place;
use crate::process::output;
use crate::server::tool;

/// A way for a process to come to a TCP connection.
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
    /// A socket that was connected to this before, and dissolved (AF_UNSPEC).
    Reconnect(SocketAddr),
    /// A socket that two threads connect and dissolve, one of them to this address.
    Race(SocketAddr),
    /// A datagram.
    Udp,
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
        }
    }

    /// What a request by this way has in its first line.
    pub fn mark(&self) -> String {
        format!("GET /{} ", self.words().0)
    }

    /// Goes this way to a `lab-server` in HTTP mode: its answer, or why there is none. A race gives
    /// a list of answers.
    ///
    /// # Errors
    ///
    /// Where the client cannot be run.
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
