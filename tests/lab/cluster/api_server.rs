//! A running API server, with the store that it keeps its objects in.

use std::cell::RefCell;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::api::{Api, OPERATOR};
use crate::authority::agents::ISSUER;
use crate::lab::Lab;
use crate::peers::peer;
use crate::place::Place;
use crate::plan::{Family, NodeName};
use crate::process::{Process, output};
use crate::wait::{SOON, eventually};

const PORT: u16 = 6443;

/// The address of the store, within node B.
const STORE: &str = "http://127.0.0.1:2379";
const STORE_PEERS: &str = "http://127.0.0.1:2380";

/// The file of the key that signs the tokens of service accounts.
const KEY: &str = "accounts.key";

/// `kube-apiserver` and `etcd` on node B, outside both nodes' control groups.
pub struct ApiServer {
    api: Api,
    log: PathBuf,
    server: RefCell<Process>,
    _store: Process,
}

impl ApiServer {
    /// Starts it, empty.
    ///
    /// # Errors
    ///
    /// If it does not begin to serve.
    pub fn start(lab: &Lab) -> Result<Self> {
        let place = lab.observer(NodeName::B)?;
        let directory = lab.directory().join("cluster");
        fs::create_dir(&directory)?;
        let tokens = format!("{OPERATOR},operator,operator,system:masters\n");
        fs::write(directory.join("tokens.csv"), tokens)?;
        make_key(&directory.join(KEY))?;
        let store = Process::start(&mut store(&place, &directory)?, &lab.new_log("etcd")?)?;
        let log = lab.new_log("api-server")?;
        let server = Process::start(&mut command(&place, &directory)?, &log)?;
        let own = Self {
            api: Api {
                place,
                address: address(),
                directory,
            },
            log,
            server: RefCell::new(server),
            _store: store,
        };
        own.wait_until_serving()?;
        Ok(own)
    }

    /// Kills it; the objects stay.
    ///
    /// # Errors
    ///
    /// If it does not end.
    pub fn kill(&self) -> Result<()> {
        self.server.borrow_mut().end(Signal::SIGKILL).map(drop)
    }

    /// Starts it again.
    ///
    /// # Errors
    ///
    /// If it does not begin to serve.
    pub fn restart(&self) -> Result<()> {
        let mut command = command(&self.api.place, &self.api.directory)?;
        *self.server.borrow_mut() = Process::start(&mut command, &self.log)?;
        self.wait_until_serving()
    }

    /// Requests to it.
    pub fn api(&self) -> &Api {
        &self.api
    }

    fn wait_until_serving(&self) -> Result<()> {
        eventually(SOON, "the API server's own objects", || {
            self.api
                .get("/api/v1/namespaces/kube-system")
                .ok()
                .map(drop)
        })
        .with_context(|| self.server.borrow().log())
    }
}

fn address() -> SocketAddr {
    (NodeName::B.link_addresses().of(Family::V4), PORT).into()
}

/// A key to sign tokens with.
fn make_key(file: &Path) -> Result<()> {
    let mut openssl = Command::new("openssl");
    openssl.args(["genrsa", "-out"]).arg(file).arg("2048");
    let made = output(&mut openssl)?;
    ensure!(made.status.success(), "openssl: {}", made.stderr);
    Ok(())
}

fn store(place: &Place, directory: &Path) -> Result<Command> {
    let mut command = place.command(peer("kubernetes/server")?)?;
    command
        .arg("--data-dir")
        .arg(directory.join("store"))
        .args(["--listen-client-urls", STORE])
        .args(["--advertise-client-urls", STORE])
        .args(["--listen-peer-urls", STORE_PEERS])
        .arg("--unsafe-no-fsync");
    Ok(command)
}

fn command(place: &Place, directory: &Path) -> Result<Command> {
    let mut command = place.command(peer("kubernetes/kube-apiserver")?)?;
    let key = directory.join(KEY);
    command
        .args(["--etcd-servers", STORE, "--bind-address"])
        .arg(address().ip().to_string())
        .args(["--secure-port", &PORT.to_string()])
        .arg("--cert-dir")
        .arg(directory.join("certificates"))
        .arg("--token-auth-file")
        .arg(directory.join("tokens.csv"))
        .args(["--authorization-mode", "RBAC"])
        .args(["--service-account-issuer", ISSUER])
        .arg("--service-account-key-file")
        .arg(&key)
        .arg("--service-account-signing-key-file")
        .arg(&key)
        .args(["--service-cluster-ip-range", "10.78.100.0/24"])
        // It would publish itself as an endpoint, which nothing here needs.
        .args(["--endpoint-reconciler-type", "none"]);
    Ok(command)
}
