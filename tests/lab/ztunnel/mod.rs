//! A ztunnel that the user has, as a peer to measure beside. It runs without a cluster if it was built with
//! its feature `testing`: one process in each pod's network namespace, with a certificate authority and
//! workloads that it is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::plan::Family;
use crate::pod::Pod;
use crate::process::{Process, output};
use crate::server::tool;

/// The mark of its own packets, which are not redirected.
const MARK: u32 = 1337;

/// Where it takes the pod's connections.
const OUTBOUND: u16 = 15001;

/// Where it takes tunnels.
const TUNNELS: u16 = 15008;

/// The most threads that it gets: as many as an agent has shards.
const MOST_THREADS: usize = 4;

/// `LISTEN` in /proc/net/tcp.
const LISTENING: &str = "0A";

/// A ztunnel's program.
#[derive(Clone, Debug)]
pub struct Ztunnel {
    program: PathBuf,
}

impl Ztunnel {
    /// The program at this path.
    ///
    /// # Errors
    ///
    /// If there is none that can be executed.
    pub fn at(path: &Path) -> Result<Self> {
        let shown = path.display();
        let program = path.canonicalize();
        let program = program.with_context(|| format!("there is no proxy at {shown}"))?;
        let metadata = program.metadata()?;
        ensure!(
            metadata.is_file(),
            "{shown} is not a file: a proxy's executable is needed"
        );
        let is_executable = metadata.permissions().mode() & 0o111 != 0;
        ensure!(is_executable, "{shown} is not executable");
        Ok(Self { program })
    }

    /// Starts one in a pod, which knows the pods of `mesh`, waits until it listens, and redirects the pod's
    /// connections to it.
    ///
    /// # Errors
    ///
    /// If it ends or does not listen, or if nftables cannot redirect.
    pub fn start(&self, lab: &Lab, pod: &Pod, mesh: &[&Pod]) -> Result<Process> {
        let directory = lab.directory();
        let file = directory.join(format!("ztunnel-{}.yaml", pod.name()));
        fs::write(&file, serde_norway::to_string(&configuration(mesh))?)?;
        let mut command = pod.place().command(&self.program)?;
        // It looks for mounted tokens and roots in its working directory.
        command.current_dir(&directory).env_clear();
        command.envs(environment(pod, &file)?);
        let mut process = Process::start(&mut command, &lab.new_log("ztunnel")?)?;
        process
            .wait_until("a ztunnel listening", |process| {
                let sockets = sockets(process.id()?);
                let listens = |port| is_listening(&sockets, port);
                (listens(OUTBOUND) && listens(TUNNELS)).then_some(())
            })
            .with_context(|| {
                let program = self.program.display();
                format!("{program} in pod {} (only builds with the feature `testing` run without a cluster)", pod.name())
            })?;
        redirect(pod)?;
        Ok(process)
    }
}

/// A program that stands in for a ztunnel in tests.
///
/// # Errors
///
/// If cargo did not build it with the tests.
pub fn proxy_binary() -> Result<PathBuf> {
    tool("lab-proxy")
}

/// What it is told by its environment.
fn environment(pod: &Pod, workloads: &Path) -> Result<Vec<(&'static str, String)>> {
    let text = |text: &str| text.to_owned();
    let threads = available_parallelism()?.get().min(MOST_THREADS);
    Ok(vec![
        ("FAKE_CA", text("true")),
        ("XDS_ADDRESS", text("")),
        ("LOCAL_XDS_PATH", workloads.display().to_string()),
        ("NODE_NAME", text(pod.node().as_str())),
        ("PROXY_MODE", text("dedicated")),
        (
            "PROXY_WORKLOAD_INFO",
            format!("{}/{}/default", pod.namespace(), pod.name()),
        ),
        ("PACKET_MARK", MARK.to_string()),
        ("ENABLE_ORIG_SRC", text("false")),
        ("ISTIO_META_DNS_CAPTURE", text("false")),
        ("ZTUNNEL_WORKER_THREADS", threads.to_string()),
        // By default it logs every connection, which Ambit does not.
        ("RUST_LOG", text("warn")),
    ])
}

/// The workloads, and one policy to be judged by: everything but a port that nothing uses.
fn configuration(mesh: &[&Pod]) -> Value {
    let workloads = mesh.iter().map(|pod| {
        let (namespace, name) = (pod.namespace(), pod.name());
        json!({
            "uid": format!("Kubernetes//Pod/{namespace}/{name}"),
            "name": name,
            "namespace": namespace,
            "serviceAccount": "default",
            "workloadIps": [pod.ip(Family::V4)],
            "protocol": "HBONE",
            "node": pod.node().as_str(),
            "network": "",
            "services": {},
        })
    });
    let namespace = mesh.first().map(|pod| pod.namespace());
    json!({
        "workloads": workloads.collect::<Value>(),
        "policies": [{
            "name": "callers",
            "namespace": namespace,
            "scope": "Namespace",
            "action": "Allow",
            "rules": [[[{"notDestinationPorts": [9999]}]]],
        }],
        "services": [],
    })
}

/// Redirects the pod's own connections, but not the proxy's and those to its loopback addresses.
fn redirect(pod: &Pod) -> Result<()> {
    let outcome = output(pod.command("nft")?.arg(redirection()))
        .context("redirecting to the proxy needs nftables (`nft`)")?;
    ensure!(
        outcome.status.success(),
        "nftables cannot redirect pod {} (the kernel needs nf_tables, nft_nat and nft_redir): {}",
        pod.name(),
        outcome.stderr
    );
    Ok(())
}

fn redirection() -> String {
    format!(
        "add table ip proxy; \
         add chain ip proxy out {{ type nat hook output priority -100; }}; \
         add rule ip proxy out meta mark != {MARK} ip daddr != 127.0.0.0/8 meta l4proto tcp \
         redirect to :{OUTBOUND}"
    )
}

/// The TCP sockets of a process's network namespace, as the kernel lists them.
fn sockets(process: u32) -> String {
    let read = |file| fs::read_to_string(format!("/proc/{process}/net/{file}")).unwrap_or_default();
    read("tcp") + &read("tcp6")
}

fn is_listening(sockets: &str, port: u16) -> bool {
    let end = format!(":{port:04X}");
    sockets.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [_, local, _, LISTENING, ..] if local.ends_with(&end))
    })
}

#[cfg(test)]
mod tests;
