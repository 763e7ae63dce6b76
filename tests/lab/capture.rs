//! What crosses the link between the nodes, or any of a node's.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::lab::Lab;
use crate::netns::Netns;
use crate::plan::NodeName;
use crate::process::Process;
use crate::same_node::Placement;
use crate::wait::{SOON, eventually};

/// Sent over the link at the end. Its presence in the capture proves that plaintext is captured,
/// and that everything before it has been written.
const END_MARK: &[u8] = b"ambit-lab-end-of-capture";

/// The address to which the mark is sent. Nothing listens there.
const DISCARD_PORT: u16 = 9;

/// A running tcpdump.
pub struct Capture {
    process: Process,
    file: PathBuf,
    netns: Netns,
    /// The other node.
    receiver: NodeName,
}

impl Capture {
    /// Starts to capture on the link, or on all devices of node B if all pods are on it, and returns when
    /// every later packet will be captured.
    ///
    /// # Errors
    ///
    /// If tcpdump does not start.
    pub fn start(lab: &Lab) -> Result<Self> {
        match lab.placement() {
            Placement::AsNamed => Self::on(lab, NodeName::A, "link0"),
            Placement::OnNodeB => Self::on_every_device(lab, NodeName::B),
        }
    }

    /// Starts to capture on all devices of a node: its loopback, its ends of its pods' links, and the link between the
    /// nodes.
    ///
    /// # Errors
    ///
    /// If tcpdump does not start.
    pub fn on_every_device(lab: &Lab, node: NodeName) -> Result<Self> {
        Self::on(lab, node, "any")
    }

    fn on(lab: &Lab, node: NodeName, device: &str) -> Result<Self> {
        let place = lab.observer(node)?;
        let file = lab.directory().join(format!("{node}-{device}.pcap"));
        let mut command = place.command("tcpdump")?;
        command
            .args(["-i", device, "-n", "-s", "0", "-U", "--immediate-mode"])
            .args(["-Z", "root", "-w"])
            .arg(&file);
        let mut process = Process::start(&mut command, &lab.new_log("tcpdump")?)?;
        process.wait_for_line("tcpdump listening", |line| {
            line.contains("listening on").then_some(())
        })?;
        Ok(Self {
            process,
            file,
            netns: place.netns().clone(),
            receiver: node.other(),
        })
    }

    /// Ends the capture and returns its bytes.
    ///
    /// # Errors
    ///
    /// If the mark that is sent at the end is not captured.
    pub fn finish(mut self) -> Result<Captured> {
        let to: SocketAddr = (self.receiver.link_addresses().v4, DISCARD_PORT).into();
        let socket = self.netns.enter(|| UdpSocket::bind(("0.0.0.0", 0)))??;
        let file = self.file.clone();
        eventually(SOON, "the end of the capture", || {
            // Sent repeatedly: tcpdump drops packets while it is behind.
            socket.send_to(END_MARK, to).ok()?;
            Captured(fs::read(&file).ok()?)
                .contains(END_MARK)
                .then_some(())
        })?;
        let status = self.process.end(Signal::SIGINT)?;
        ensure!(
            status.success(),
            "tcpdump: {status}: {}",
            self.process.log()
        );
        let bytes = fs::read(&self.file).context("cannot read the capture")?;
        Ok(Captured(bytes))
    }
}

/// The bytes of every packet.
pub struct Captured(Vec<u8>);

impl Captured {
    /// Whether some bytes crossed the link in plaintext. They must fit into one packet.
    pub fn contains(&self, bytes: &[u8]) -> bool {
        self.0.windows(bytes.len()).any(|window| window == bytes)
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was captured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
