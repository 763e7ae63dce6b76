//! Services, and what kube-proxy does for them.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::place::Place;
use crate::plan::{Addresses, Family};
use crate::pod::Pod;
use crate::process::output;

/// A Service with one port and one pod.
#[derive(Clone, Debug)]
pub struct Service {
    namespace: &'static str,
    name: &'static str,
    addresses: Addresses,
    port: u16,
    target_port: u16,
    protocol: Option<&'static str>,
}

impl Service {
    pub(crate) fn new(pod: &Pod, addresses: Addresses, port: u16, target_port: u16) -> Self {
        Self {
            namespace: pod.namespace(),
            name: pod.name(),
            addresses,
            port,
            target_port,
            protocol: None,
        }
    }

    /// Declares what its port speaks (`appProtocol`).
    #[must_use]
    pub fn speaking(mut self, protocol: &'static str) -> Self {
        self.protocol = Some(protocol);
        self
    }

    /// A cluster IP.
    pub fn ip(&self, family: Family) -> IpAddr {
        self.addresses.of(family)
    }

    /// Its port, at its IPv4 address.
    pub fn at(&self) -> SocketAddr {
        (self.addresses.v4, self.port).into()
    }

    /// The file of the configuration that describes it.
    pub fn file_name(&self) -> String {
        format!("service-{}-{}.yaml", self.namespace, self.name)
    }

    /// The Service object.
    pub fn manifest(&self) -> Value {
        let [v4, v6] = self.addresses.texts();
        let mut port = json!({
            "protocol": "TCP",
            "port": self.port,
            "targetPort": self.target_port,
        });
        if let Some(protocol) = self.protocol {
            port["appProtocol"] = protocol.into();
        }
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": self.namespace, "name": self.name},
            "spec": {
                "selector": {"app": self.name},
                "clusterIP": v4,
                "clusterIPs": [v4, v6],
                "ipFamilies": ["IPv4", "IPv6"],
                "ports": [port],
            },
        })
    }

    /// Translates the Service's addresses to the pod's, in a node's network namespace.
    pub(crate) fn translate_on(&self, node: &Place, pod: &Pod) -> Result<()> {
        let mut script = String::from("add table inet services\n");
        for chain in ["prerouting", "output"] {
            script.push_str(&format!(
                "add chain inet services {chain} {{ type nat hook {chain} priority -100; }}\n"
            ));
            for family in Family::ALL {
                let keyword = match family {
                    Family::V4 => "ip",
                    Family::V6 => "ip6",
                };
                script.push_str(&format!(
                    "add rule inet services {chain} {keyword} daddr {} tcp dport {} dnat {keyword} \
                     to {}\n",
                    self.ip(family),
                    self.port,
                    SocketAddr::new(pod.ip(family), self.target_port),
                ));
            }
        }
        let outcome = output(node.command("nft")?.arg(script))?;
        ensure!(outcome.status.success(), "nft: {}", outcome.stderr.trim());
        Ok(())
    }
}
