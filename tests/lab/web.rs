//! An HTTP/1 server in a pod that reports to the byte what it sees.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::lab::Lab;
use crate::place::Place;
use crate::plan::Family;
use crate::pod::Pod;
use crate::process::Process;
use crate::server::tool;
use crate::wait::{SOON, eventually};

/// A running `lab-web`: `/ws` sends everything back once asked by Upgrade, `/slow` answers without an
/// end, `/wait` when the client has ended its side, `/old` in old forms of HTTP, and everything else is
/// answered with what was seen.
pub struct WebServer {
    process: Process,
}

impl WebServer {
    /// Starts one in a pod, on ports of both its addresses, and waits until it listens.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn in_pod(lab: &Lab, pod: &Pod, ports: &[u16]) -> Result<Self> {
        let addresses = Family::ALL.map(|family| {
            let ports = ports.iter();
            ports.map(move |port| SocketAddr::new(pod.ip(family), *port))
        });
        let addresses: Vec<_> = addresses.into_iter().flatten().collect();
        Self::start(lab, pod.place(), &addresses)
    }

    /// Starts one and waits until it listens.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn start(lab: &Lab, place: &Place, listen: &[SocketAddr]) -> Result<Self> {
        let mut command = place.command(tool("lab-web")?)?;
        command.args(listen.iter().map(SocketAddr::to_string));
        let mut process = Process::start(&mut command, &lab.new_log("lab-web")?)?;
        process.wait_for_line("a web server listening", |line| {
            line.starts_with("listening").then_some(())
        })?;
        Ok(Self { process })
    }

    /// The heads of the requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.said("head")
    }

    /// The lengths of the bodies that came in full.
    pub fn bodies(&self) -> Vec<u64> {
        let events = self.events();
        events
            .iter()
            .filter_map(|event| event["body"].as_u64())
            .collect()
    }

    /// Their SHA-256, in hexadecimal digits.
    pub fn digests(&self) -> Vec<String> {
        self.said("digest")
    }

    /// The addresses that its connections came from.
    ///
    /// # Errors
    ///
    /// If one is not an address.
    pub fn peers(&self) -> Result<Vec<SocketAddr>> {
        let peers = self.said("peer").into_iter();
        peers.map(|peer| Ok(peer.parse()?)).collect()
    }

    /// Waits until every connection so far has ended, and ensures that no connection had bytes outside
    /// of requests.
    ///
    /// # Errors
    ///
    /// If one has not, or did.
    pub fn ensure_nothing_left(&self) -> Result<()> {
        eventually(SOON, "the end of the server's connections", || {
            let opened = self.said("peer").len();
            (self.said("ended").len() == opened).then_some(())
        })?;
        let left: Vec<String> = self.said("left");
        ensure!(left.iter().all(String::is_empty), "it got {left:?}");
        Ok(())
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.said("peer").len()
    }

    fn said(&self, field: &str) -> Vec<String> {
        let events = self.events().into_iter();
        events
            .filter_map(|event| Some(event.get(field)?.as_str()?.to_owned()))
            .collect()
    }

    fn events(&self) -> Vec<Value> {
        let log = self.process.log();
        log.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}
