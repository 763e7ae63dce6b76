//! A link between the nodes that is slow: this kernel has no netem.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::Lab;
use crate::plan::{GATEWAY, NodeName};
use crate::pod::Pod;
use crate::process::Process;
use crate::server::tool;

/// The name of the link's device in both nodes.
pub(crate) const DEVICE: &str = "link0";

/// Bytes of a packet, as on most networks.
const MTU: u16 = 1500;

/// How a link differs from a perfect one. Both directions are alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// How long every packet takes from one node to the other.
    pub delay: Duration,
    /// How fast bits are sent.
    pub rate: Rate,
    /// Bytes that may wait to be sent; what comes then is dropped.
    pub queue: u32,
}

impl Link {
    /// How long a packet waits behind a full queue.
    pub fn queueing(self) -> Duration {
        match self.rate.bits_per_second() {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(f64::from(self.queue) * 8.0 / rate as f64),
        }
    }
}

/// Bits in a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rate {
    /// As many as the machine can carry.
    Unlimited,
    /// So many thousand a second.
    Kilobits(u32),
}

impl Rate {
    /// What `lab-link` takes: 0 means no limit.
    fn bits_per_second(self) -> u64 {
        match self {
            Self::Unlimited => 0,
            Self::Kilobits(thousands) => u64::from(thousands) * 1000,
        }
    }
}

/// The process that carries a link's packets. The link is down once it is dropped.
pub struct SlowLink {
    _process: Process,
}

impl Lab {
    /// Replaces the link between the nodes by a slow one. All connections between them have to be opened later.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, for example because it has no TUN devices.
    pub fn slow_link(&self, link: Link) -> Result<SlowLink> {
        let observer = self.observer(NodeName::A)?;
        observer.netns().ip(&format!("link del {DEVICE}\n"))?;
        let mut command = observer.command(tool("lab-link")?)?;
        command.arg(DEVICE);
        for node in NodeName::ALL {
            command.arg(self.observer(node)?.netns().name());
        }
        command.arg(link.delay.as_micros().to_string());
        command.arg(link.rate.bits_per_second().to_string());
        command.arg(link.queue.to_string());
        let mut process = Process::start(&mut command, &self.new_log("lab-link")?)?;
        process
            .wait_for_line("the link", |line| (line == "up").then_some(()))
            .context("a link of TUN devices")?;
        for node in NodeName::ALL {
            let netns = self.observer(node)?.netns().clone();
            netns.ip(&format!("link set {DEVICE} mtu {MTU}\n"))?;
        }
        self.configure_link()?;
        Ok(SlowLink { _process: process })
    }
}

/// How a sender of TCP finds out how fast it may send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CongestionControl {
    /// By losses.
    Cubic,
    /// By the bandwidth and the delay that it measures.
    Bbr,
}

impl CongestionControl {
    /// The kernel's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }

    /// Whether this kernel has it.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell.
    pub fn is_available(self) -> Result<bool> {
        let known = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control")?;
        Ok(known.split_whitespace().any(|name| name == self.name()))
    }

    /// Uses it for the connections that are opened or accepted in these pods from now on. By the routes: a network
    /// namespace may not choose every one that the kernel has.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn use_in(self, pods: &[&Pod]) -> Result<()> {
        let set = |pod: &&Pod| {
            let gateway = pod.node().pod_addresses(GATEWAY);
            let change = |gateway| {
                let name = self.name();
                format!("route change default via {gateway} dev eth0 congctl {name}\n")
            };
            let lines = gateway.texts().map(change).concat();
            pod.place().netns().ip(&lines)
        };
        pods.iter().try_for_each(set)
    }
}
