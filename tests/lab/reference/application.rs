//! The applications of the reference example: nginx, which passes an order on as a charge.

use std::net::SocketAddr;

use anyhow::Result;

use super::Reference;
use crate::lab::Lab;
use crate::nginx::Nginx;
use crate::plan::{Family, NodeName};
use crate::process::Process;

/// In every answer of `payments`.
pub(super) const RECEIPT: &str = "receipt-5c1f0a7d";

/// In every order, and in the charge that follows from it.
pub(super) const CARD: &str = "card-4929d0b3";

/// Secrets that must not be seen on the link.
pub const PAYLOADS: [&str; 2] = [CARD, RECEIPT];

/// The running servers. Dropping it ends them.
pub struct Application {
    servers: Vec<Process>,
}

impl Application {
    /// Starts `orders`, `payments`, and a server on node B itself that is outside the mesh, and
    /// waits until they listen.
    ///
    /// # Errors
    ///
    /// If nginx does not start.
    pub fn start(lab: &Lab, mesh: &Reference) -> Result<Self> {
        let charge = format!("http://{}/charge", mesh.payments_service.at());
        let orders = format!("location = /order {{ proxy_pass {charge}; }}");
        let payments = format!(
            "location = /charge {{ return 200 \"{RECEIPT}, charged to $remote_addr\\n\"; }}\n\
             location = /healthy {{ return 200 \"healthy\\n\"; }}"
        );
        let outside = "location / { return 200 \"outside the mesh\\n\"; }";
        let pods = [
            (&mesh.orders, orders, &[Reference::PORT][..]),
            (
                &mesh.payments,
                payments,
                &[Reference::PORT, Reference::PROBE_PORT][..],
            ),
        ];
        let mut servers = Vec::new();
        for (pod, locations, ports) in pods {
            let listen = Family::ALL.map(|family| {
                let ports = ports.iter();
                ports.map(move |port| SocketAddr::new(pod.ip(family), *port))
            });
            let server = Nginx {
                name: pod.name(),
                listen: &listen.into_iter().flatten().collect::<Vec<_>>(),
                protocol: "",
                locations: &locations,
            };
            servers.push(server.start(lab, pod.place())?);
        }
        let address = (NodeName::B.link_addresses().v4, Reference::PORT).into();
        let server = Nginx {
            name: "outside",
            listen: &[address],
            protocol: "",
            locations: outside,
        };
        servers.push(server.start(lab, &lab.node(NodeName::B)?)?);
        Ok(Self { servers })
    }

    /// Leaves the servers running when this is dropped.
    pub fn leave(self) {
        self.servers.into_iter().for_each(Process::leave);
    }
}
