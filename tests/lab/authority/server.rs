//! A running `ambit ca serve`, and the cluster whose tokens it accepts.

use std::cell::RefCell;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::access::{CaAccess, CaEndpoint};
use super::agents::{AGENT, AUDIENCE, ISSUER, agent_manifest, agent_pod};
use super::files::CaFiles;
use crate::agent::binary;
use crate::lab::Lab;
use crate::plan::{Family, NodeName};
use crate::pod::{Membership, Pod};
use crate::process::Process;
use crate::token::TokenIssuer;

const PORT: u16 = 15012;

/// The name in the authority's certificate.
pub(super) const DNS_NAME: &str = "ambit-ca.ambit-system.svc";

/// How many certificates one caller gets.
#[derive(Clone, Copy, Debug)]
pub struct CallerLimits {
    /// At once.
    pub burst: u32,
    /// In the long run.
    pub per_second: u32,
}

/// For tests that are about something else.
const LIMITS: CallerLimits = CallerLimits {
    burst: 100,
    per_second: 10,
};

/// `ambit ca serve` on node B, outside both nodes' control groups, and a cluster's issuer of
/// tokens for service accounts.
pub struct CaServer {
    files: CaFiles,
    cluster: TokenIssuer,
    directory: PathBuf,
    process: RefCell<Process>,
    lifetime: Duration,
}

/// The contents of a service account's token.
#[derive(Clone, Copy, Debug)]
pub struct CallerToken<'a> {
    /// Namespace and name of the service account.
    pub account: (&'a str, &'a str),
    /// The name of the pod that it is bound to.
    pub pod: &'a str,
    /// The node to which it is bound, if any.
    pub node: Option<&'a str>,
    /// Its audience.
    pub audience: &'a str,
    /// Its issuer.
    pub issuer: &'a str,
    /// Seconds from now until it expires; negative if it has expired.
    pub expires_in: i64,
}

impl<'a> CallerToken<'a> {
    /// The token of an agent on a node.
    pub fn of_agent(node: NodeName) -> Self {
        Self {
            account: AGENT,
            pod: agent_pod(node),
            node: Some(node.as_str()),
            audience: AUDIENCE,
            issuer: ISSUER,
            expires_in: 3600,
        }
    }

    /// A pod's own token.
    pub fn of(pod: &'a Pod) -> Self {
        Self {
            account: (pod.namespace(), "default"),
            pod: pod.name(),
            ..Self::of_agent(pod.node())
        }
    }

    /// The claims, as Kubernetes writes them into a token that is bound to a pod.
    pub fn claims(&self) -> Result<Value> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let now = i64::try_from(now)?;
        let (namespace, name) = self.account;
        let mut bound = json!({
            "namespace": namespace,
            "serviceaccount": {"name": name, "uid": "1"},
            "pod": {"name": self.pod, "uid": "2"},
        });
        if let Some(node) = self.node {
            bound["node"] = json!({"name": node, "uid": "3"});
        }
        Ok(json!({
            "iss": self.issuer,
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
            "aud": [self.audience],
            "iat": now - 7200,
            "nbf": now - 7200,
            "exp": now + self.expires_in,
            "kubernetes.io": bound,
        }))
    }
}

impl CaServer {
    /// Makes an authority, starts its server, and makes the agents that are started from now on get
    /// their certificates from it, each for `lifetime`.
    ///
    /// # Errors
    ///
    /// If it does not begin to serve.
    pub fn start(lab: &Lab, lifetime: Duration) -> Result<Self> {
        let directory = lab.directory();
        let cluster = TokenIssuer::new()?;
        fs::write(directory.join("jwks.json"), cluster.jwks().to_string())?;
        let files = CaFiles::make(&directory)?;
        lab.manifests().write_namespace(AGENT.0, Membership::None)?;
        for node in NodeName::ALL {
            let file = format!("pod-{}.yaml", agent_pod(node));
            lab.manifests().write_object(&file, &agent_manifest(node))?;
        }
        let process = launch(lab, &files, &[], &offline(lab, lifetime, LIMITS))?;
        let server = Self {
            files,
            cluster,
            directory,
            process: RefCell::new(process),
            lifetime,
        };
        for node in NodeName::ALL {
            let token = server.token(&CallerToken::of_agent(node))?;
            fs::write(server.token_file(node), token)?;
        }
        lab.set_certificates_from(server.access());
        lab.set_certificate_lifetime(u32::try_from(lifetime.as_secs())?);
        Ok(server)
    }

    /// Its files.
    pub fn files(&self) -> &CaFiles {
        &self.files
    }

    /// How it is reached.
    pub fn endpoint(&self) -> CaEndpoint {
        endpoint(&self.files)
    }

    /// The issuer of the cluster's tokens.
    pub fn cluster(&self) -> &TokenIssuer {
        &self.cluster
    }

    /// A token of the cluster.
    ///
    /// # Errors
    ///
    /// If it cannot be signed.
    pub fn token(&self, token: &CallerToken<'_>) -> Result<String> {
        self.cluster.token(&token.claims()?)
    }

    /// Its log since its last start.
    pub fn log(&self) -> String {
        self.process.borrow().log()
    }

    /// Kills it.
    ///
    /// # Errors
    ///
    /// If it does not end.
    pub fn kill(&self) -> Result<()> {
        self.process.borrow_mut().end(Signal::SIGKILL).map(drop)
    }

    /// Starts it again.
    ///
    /// # Errors
    ///
    /// If it does not begin to serve.
    pub fn restart(&self, lab: &Lab) -> Result<()> {
        self.restart_with(lab, LIMITS)
    }

    /// Kills it, and starts it again with other limits.
    ///
    /// # Errors
    ///
    /// If it does not begin to serve.
    pub fn limit(&self, lab: &Lab, limits: CallerLimits) -> Result<()> {
        self.kill()?;
        self.restart_with(lab, limits)
    }

    fn restart_with(&self, lab: &Lab, limits: CallerLimits) -> Result<()> {
        let options = offline(lab, self.lifetime, limits);
        *self.process.borrow_mut() = launch(lab, &self.files, &[], &options)?;
        Ok(())
    }

    /// Sends it a signal that does not end it immediately.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.process.borrow().id().context("the CA has ended")?;
        Ok(kill(Pid::from_raw(id.cast_signed()), signal)?)
    }

    fn token_file(&self, node: NodeName) -> PathBuf {
        self.directory.join(format!("token-{node}"))
    }

    fn access(&self) -> CaAccess {
        CaAccess {
            endpoint: self.endpoint(),
            tokens: NodeName::ALL.map(|node| self.token_file(node)),
        }
    }
}

/// The address on which an authority listens.
pub(super) fn address() -> SocketAddr {
    (NodeName::B.link_addresses().of(Family::V4), PORT).into()
}

/// How an authority with these files is reached.
pub(crate) fn endpoint(files: &CaFiles) -> CaEndpoint {
    CaEndpoint {
        address: address(),
        server_name: DNS_NAME,
        roots: files.roots(),
    }
}

/// The options of a server that needs no API server.
fn offline(lab: &Lab, lifetime: Duration, limits: CallerLimits) -> Vec<String> {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    [
        ("--max-lifetime", lifetime.as_secs().to_string()),
        ("--jwks", path(&lab.directory().join("jwks.json"))),
        ("--issuer", ISSUER.to_owned()),
        ("--burst", limits.burst.to_string()),
        ("--rate", limits.per_second.to_string()),
        ("--config-dir", path(lab.manifests().directory())),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_owned(), value])
    .collect()
}

/// Starts `ambit ca serve`, with the agents' account as a node account: by `wrapper`, a command that
/// ends by becoming what follows it.
pub(crate) fn launch(
    lab: &Lab,
    files: &CaFiles,
    wrapper: &[String],
    options: &[String],
) -> Result<Process> {
    let mut command = lab.observer(NodeName::B)?.command("env")?;
    let (namespace, account) = AGENT;
    command
        .args(wrapper)
        .arg(binary()?)
        .args(["ca", "serve", "--log-format", "json"])
        .args(["--dns-name", DNS_NAME])
        .arg("--dir")
        .arg(files.directory())
        .args(["--listen", &address().to_string()])
        .args(["--node-account", &format!("{namespace}/{account}")])
        .args(options);
    let mut process = Process::start(&mut command, &lab.new_log("ca")?)?;
    process.wait_for_line("the CA serving", |line| {
        line.contains("the CA serves").then_some(())
    })?;
    Ok(process)
}
