//! A running Envoy.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::case::{Case, Protocol};
use crate::clients::Clients;
use crate::listener::{address, configuration};
use crate::peer::Identities;

/// How long a start or an answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// An Envoy that is installed.
pub(crate) struct Binary(PathBuf);

impl Binary {
    /// The one that is named, or the one that `cargo xtask setup` installs.
    pub(crate) fn find() -> Result<Self> {
        ambit_tests::envoy_binary().map(Self)
    }
}

/// A process of it, with a listener for each case. Dropping it ends it.
pub(crate) struct Envoy {
    process: Child,
    directory: TempDir,
    identities: Identities,
}

impl Envoy {
    /// Starts one, and waits until it answers.
    pub(crate) fn start(binary: &Binary, cases: &[Case]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let identities = Identities::new(directory.path())?;
        let file = directory.path().join("envoy.json");
        fs::write(&file, configuration(cases, &identities).to_string())?;
        let process = Command::new(&binary.0)
            .arg("--config-path")
            .arg(&file)
            .arg("--log-path")
            .arg(log(directory.path()))
            .args([
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "--log-level",
                "error",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", binary.0.display()))?;
        let mut envoy = Self {
            process,
            directory,
            identities,
        };
        envoy.wait(cases.len())?;
        Ok(envoy)
    }

    /// It opens its listeners when all of its configuration is read, one after another.
    fn wait(&mut self, listeners: usize) -> Result<()> {
        let start = Instant::now();
        for number in 0..listeners {
            while TcpStream::connect(address(number)).is_err() {
                if let Some(status) = self.process.try_wait()? {
                    bail!("Envoy ended: {status}\n{}", self.log());
                }
                ensure!(start.elapsed() < PATIENCE, "Envoy is slow\n{}", self.log());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Its log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(log(self.directory.path())).unwrap_or_default()
    }

    /// Connections to a case's listener.
    pub(crate) fn clients(&self, number: usize, protocol: Protocol) -> Clients<'_> {
        Clients::new(self, address(number), protocol)
    }

    /// The certificates of its clients.
    pub(crate) fn identities(&self) -> &Identities {
        &self.identities
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let ended = self.process.kill().and_then(|()| self.process.wait());
        if let Err(error) = ended {
            eprintln!("Envoy could not be ended: {error}");
        }
    }
}

fn log(directory: &Path) -> PathBuf {
    directory.join("envoy.log")
}
