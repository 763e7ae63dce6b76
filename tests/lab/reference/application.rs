//! What runs in the pods of the reference example: nginx, which passes an order on as a charge.

use std::fs;

use anyhow::Result;

use super::Reference;
use crate::lab::Lab;
use crate::place::Place;
use crate::plan::{Family, NodeName};
use crate::process::Process;

/// In every answer of `payments`.
pub(super) const RECEIPT: &str = "receipt-5c1f0a7d";

/// In every order, and in the charge that follows from it.
pub(super) const CARD: &str = "card-4929d0b3";

/// What nobody may see who overhears the link.
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
    /// Where nginx does not start.
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
            let listen = Family::ALL
                .iter()
                .flat_map(|family| ports.iter().map(|port| (pod.ip(*family), *port).into()))
                .map(listen)
                .collect::<String>();
            servers.push(nginx(lab, pod.place(), pod.name(), &listen, &locations)?);
        }
        let address = (NodeName::B.link_addresses().v4, Reference::PORT).into();
        let node = lab.node(NodeName::B)?;
        servers.push(nginx(lab, &node, "outside", &listen(address), outside)?);
        Ok(Self { servers })
    }

    /// Leaves the servers running when this is dropped.
    pub fn leave(self) {
        self.servers.into_iter().for_each(Process::leave);
    }
}

fn listen(address: std::net::SocketAddr) -> String {
    format!("listen {address};\n")
}

fn nginx(lab: &Lab, place: &Place, name: &str, listen: &str, locations: &str) -> Result<Process> {
    let directory = lab.directory().join(name);
    fs::create_dir(&directory)?;
    let configuration = directory.join("nginx.conf");
    fs::write(&configuration, configure(listen, locations))?;
    let mut command = place.command("nginx")?;
    command.arg("-e").arg("stderr").arg("-p").arg(&directory);
    command.arg("-c").arg(&configuration);
    let mut server = Process::start(&mut command, &lab.new_log(name)?)?;
    // It logs this once its sockets listen.
    server.wait_for_line("nginx listening", |line| {
        line.contains("start worker process").then_some(())
    })?;
    Ok(server)
}

fn configure(listen: &str, locations: &str) -> String {
    format!(
        "daemon off;\nworker_processes 1;\nuser root;\npid nginx.pid;\nerror_log stderr notice;\n\
         events {{}}\n\
         http {{\n\
         access_log off;\n\
         client_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path fastcgi;\n\
         uwsgi_temp_path uwsgi;\nscgi_temp_path scgi;\n\
         default_type text/plain;\n\
         server {{\n{listen}{locations}\n}}\n}}\n"
    )
}
