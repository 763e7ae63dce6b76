//! nginx, as an application.

use std::fs;
use std::net::SocketAddr;

use anyhow::Result;

use crate::lab::Lab;
use crate::place::Place;
use crate::process::Process;

/// One `server` of nginx.
pub struct Nginx<'a> {
    /// The name of its directory and its log; unique in the lab.
    pub name: &'a str,
    /// The port on which it listens.
    pub listen: &'a [SocketAddr],
    /// Further words of `listen`, for example `http2`.
    pub protocol: &'a str,
    /// The rest of its configuration: locations.
    pub locations: &'a str,
}

impl Nginx<'_> {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn start(&self, lab: &Lab, place: &Place) -> Result<Process> {
        let directory = lab.directory().join(self.name);
        fs::create_dir(&directory)?;
        let configuration = directory.join("nginx.conf");
        fs::write(&configuration, self.configuration())?;
        let mut command = place.command("nginx")?;
        command.arg("-e").arg("stderr").arg("-p").arg(&directory);
        command.arg("-c").arg(&configuration);
        let mut server = Process::start(&mut command, &lab.new_log(self.name)?)?;
        // It logs this once its sockets listen.
        server.wait_for_line("nginx listening", |line| {
            line.contains("start worker process").then_some(())
        })?;
        Ok(server)
    }

    fn configuration(&self) -> String {
        let listen = self.listen.iter();
        let listen: String = listen
            .map(|address| format!("listen {address} {};\n", self.protocol))
            .collect();
        format!(
            "daemon off;\nworker_processes 1;\nuser root;\npid nginx.pid;\n\
             error_log stderr notice;\nevents {{}}\n\
             http {{\n\
             access_log off;\n\
             client_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path fastcgi;\n\
             uwsgi_temp_path uwsgi;\nscgi_temp_path scgi;\n\
             default_type text/plain;\n\
             server {{\n{listen}{}\n}}\n}}\n",
            self.locations
        )
    }
}
