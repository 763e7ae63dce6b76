//! External authorizers, by gRPC and by HTTP.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use crate::lab::Lab;
use crate::place::Place;
use crate::process::Process;
use crate::server::tool;

/// A running `lab-authorizer`: it denies with 401 and `not today` requests that contain `/deny`, and
/// allows the rest.
pub struct GrpcAuthorizer {
    process: Process,
}

impl GrpcAuthorizer {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn start(lab: &Lab, place: &Place, listen: SocketAddr) -> Result<Self> {
        let mut command = place.command(tool("lab-authorizer")?)?;
        command.arg(listen.to_string());
        let mut process = Process::start(&mut command, &lab.new_log("lab-authorizer")?)?;
        process.wait_for_line("an authorizer listening", |line| {
            line.starts_with("listening").then_some(())
        })?;
        Ok(Self { process })
    }

    /// The checks that it received.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// A running `clients/authorizer.py`.
pub struct PythonAuthorizer {
    _process: Process,
}

impl PythonAuthorizer {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn start(lab: &Lab, place: &Place, listen: SocketAddr) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/authorizer.py");
        let mut command = place.command("python3")?;
        command.arg("-u").arg(script);
        command.args([listen.ip().to_string(), listen.port().to_string()]);
        let mut process = Process::start(&mut command, &lab.new_log("authorizer.py")?)?;
        process.wait_for_line("an authorizer listening", |line| {
            line.starts_with("listening").then_some(())
        })?;
        Ok(Self { _process: process })
    }
}
