//! A node's agent.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::client::{Reply, get};
use crate::descriptors;
use crate::lab::Lab;
use crate::place::Place;
use crate::plan::{MESH_CIDRS, NodeName};
use crate::process::{Outcome, Process, output};
use crate::run::creating;
use crate::wait::{SOON, eventually, slowness};

/// Names the binary to run instead of the one that `cargo xtask build` makes.
const BINARY_VARIABLE: &str = "AMBIT_BINARY";

/// The address of an agent's metrics, in its node's own namespace.
const METRICS: &str = "127.0.0.1:15020";

/// The longest delay of the log.
const LOG_LATENESS: Duration = Duration::from_millis(25);

/// A running agent. Dropping it kills it.
pub struct Agent {
    process: Process,
    socket: PathBuf,
    place: Place,
}

impl Agent {
    /// Starts one without waiting for anything: by `wrapper`, a command that ends by becoming what
    /// follows it, if that is not empty.
    pub(crate) fn launch(
        lab: &Lab,
        node: NodeName,
        place: &Place,
        wrapper: &[&str],
    ) -> Result<Self> {
        let state = lab.directory().join(node.as_str());
        {
            let _gate = creating();
            std::fs::create_dir_all(&state)?;
        }
        let [program, arguments @ ..] = descriptors::AS_A_LOGIN;
        let mut command = place.command(program)?;
        command
            .args(arguments)
            .args(wrapper)
            .arg(binary()?)
            .args(["run", "--node", node.as_str()])
            .arg("--cgroup")
            .arg(lab.node_cgroup(node))
            .arg("--pods-cgroup")
            .arg(lab.node_cgroup(node).join("kubepods"))
            .arg("--config-dir")
            .arg(lab.manifests().directory())
            .arg("--pin-dir")
            .arg(lab.pins(node))
            .args(["--log-format", "json", "--metrics", METRICS])
            .arg("--socket")
            .arg(state.join("admin.sock"))
            .args(["--same-node", lab.same_node().as_str()])
            .args(lab.certificate_options(node));
        for range in MESH_CIDRS {
            command.args(["--mesh-cidr", range]);
        }
        Ok(Self {
            process: Process::start(&mut command, &lab.new_log(node.as_str())?)?,
            socket: state.join("admin.sock"),
            place: place.clone(),
        })
    }

    /// What `ambit VERB -o json` prints.
    ///
    /// # Errors
    ///
    /// If the agent does not answer.
    pub fn ask(&self, verb: &str) -> Result<Value> {
        ask(&self.socket, verb)
    }

    /// Its metrics.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn metrics(&self) -> Result<String> {
        let reply = get(&self.place, &format!("http://{METRICS}/metrics"))?;
        match reply {
            Reply::Answer(text) => Ok(text),
            reply => bail!("no metrics: {reply:?}"),
        }
    }

    /// What `ambit explain -o json` answers with these arguments.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn explain(&self, question: &[String]) -> Result<Value> {
        let socket = self
            .socket
            .to_str()
            .context("the socket's path is not UTF-8")?;
        let mut arguments = vec!["explain", "-o", "json", "--socket", socket];
        arguments.extend(question.iter().map(String::as_str));
        let outcome = ambit(&arguments)?;
        let is_answer = outcome.status.success();
        ensure!(is_answer, "ambit {arguments:?}: {}", outcome.stderr);
        Ok(serde_json::from_str(&outcome.stdout)?)
    }

    /// The unix socket on which the agent answers.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The ports that it listens on in a pod, `namespace/name`.
    ///
    /// # Errors
    ///
    /// If it shows none.
    pub fn listener_ports(&self, pod: &str) -> Result<Vec<u16>> {
        let workloads = self.ask("workloads")?;
        let mut workloads = workloads.as_array().into_iter().flatten();
        let own = workloads.find(|workload| workload["pod"] == pod);
        let ports = own.and_then(|workload| workload["listener_ports"].as_array());
        let ports = ports.filter(|ports| !ports.is_empty());
        let ports = ports.with_context(|| format!("no listener ports of {pod} are shown"))?;
        ports
            .iter()
            .map(|port| Ok(port.as_u64().context("no port")?.try_into()?))
            .collect()
    }

    /// Its process's id.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Bytes of its memory that are resident.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn resident(&self) -> Result<u64> {
        let id = self.id().context("the agent has ended")?;
        let text = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next());
        Ok(kilobytes.context("no VmRSS")?.parse::<u64>()? * 1024)
    }

    /// A text field of each of its certificates, sorted.
    ///
    /// # Errors
    ///
    /// If it does not answer, or one does not have the field.
    pub fn certificates(&self, field: &str) -> Result<Vec<String>> {
        let texts = self.each_certificate()?.into_iter().map(|certificate| {
            let text = certificate[field].as_str();
            Ok(text.with_context(|| format!("no {field}"))?.to_owned())
        });
        let mut texts = texts.collect::<Result<Vec<_>>>()?;
        texts.sort();
        Ok(texts)
    }

    /// Whether it holds identities, and has no certificate for any of them, for a reason that contains
    /// these words.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn lacks_all_certificates(&self, words: &str) -> Result<bool> {
        let all = self.each_certificate()?;
        let is_missing = |certificate: &Value| {
            let error = certificate["error"].as_str().unwrap_or_default();
            certificate["state"] == "missing" && error.contains(words)
        };
        Ok(!all.is_empty() && all.iter().all(is_missing))
    }

    fn each_certificate(&self) -> Result<Vec<Value>> {
        let certificates = self.ask("certs")?;
        Ok(certificates.as_array().context("no list")?.clone())
    }

    /// How many connections it has refused for a reason.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn refused(&self, reason: &str) -> Result<u64> {
        let status = self.ask("status")?;
        let refused = status["proxy"]["refused"].as_object();
        let refused = refused.with_context(|| format!("no counts of refusals in {status}"))?;
        Ok(refused.get(reason).and_then(Value::as_u64).unwrap_or(0))
    }

    /// The agent's whole log. It is written a moment after the event.
    pub fn log(&self) -> String {
        sleep(LOG_LATENESS * slowness());
        self.process.log()
    }

    /// Sends it a signal that does not end it immediately.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.id().context("the agent has ended")?;
        Ok(kill(Pid::from_raw(id.cast_signed()), signal)?)
    }

    /// Waits until a signal has stopped it: only then does SIGCONT have an effect.
    ///
    /// # Errors
    ///
    /// If no signal stops it.
    pub(crate) fn wait_until_stopped(&self) -> Result<()> {
        let id = self.id().context("the agent has ended")?;
        let status = format!("/proc/{id}/status");
        eventually(SOON, "the agent being stopped", || {
            let status = std::fs::read_to_string(&status).ok()?;
            status.contains("State:\tT (stopped)").then_some(())
        })
    }

    /// Tells it to end, and waits. Returns how it ended, and its whole output.
    ///
    /// # Errors
    ///
    /// If it does not end.
    pub fn stop(mut self) -> Result<(ExitStatus, String)> {
        let status = self.process.end(Signal::SIGTERM)?;
        Ok((status, self.log()))
    }

    /// Waits until it ends without being told to. Returns how, and its whole output.
    ///
    /// # Errors
    ///
    /// If it does not end.
    pub fn end(mut self) -> Result<(ExitStatus, String)> {
        let status = self.process.wait_for_end()?;
        Ok((status, self.log()))
    }

    /// Kills it, as `kill -9` does.
    ///
    /// # Errors
    ///
    /// If it does not end.
    pub fn kill(mut self) -> Result<()> {
        self.kill_at_once()
    }

    /// The same, if another one is to take its place.
    ///
    /// # Errors
    ///
    /// If it does not end.
    pub fn kill_at_once(&mut self) -> Result<()> {
        self.process.end(Signal::SIGKILL).map(drop)
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Leaves it running when this is dropped.
    pub fn leave(self) {
        self.process.leave();
    }

    pub(crate) fn wait_until_answering(&mut self) -> Result<()> {
        let Self {
            process, socket, ..
        } = self;
        process.wait_until("the agent answering", |_| status(socket).ok().map(drop))
    }

    /// Waits until the configuration is complete and every pod of the node that is opted in is served.
    pub(crate) fn wait_until_serving(&mut self) -> Result<()> {
        let Self {
            process, socket, ..
        } = self;
        process
            .wait_until("the agent serving its pods", |_| {
                (status(socket).ok()?["ready"] == true).then_some(())
            })
            .with_context(|| format!("status: {:?}", status(socket)))
    }
}

fn status(socket: &Path) -> Result<Value> {
    ask(socket, "status")
}

fn ask(socket: &Path, verb: &str) -> Result<Value> {
    let mut command = Command::new(binary()?);
    command.args([verb, "-o", "json", "--socket"]).arg(socket);
    let outcome = output(&mut command)?;
    ensure!(outcome.status.success(), "ambit {verb}: {}", outcome.stderr);
    serde_json::from_str(&outcome.stdout)
        .with_context(|| format!("`ambit {verb}` said: {}", outcome.stdout))
}

/// Runs `ambit` outside the lab to its end.
///
/// # Errors
///
/// If it cannot be run.
pub fn ambit(arguments: &[&str]) -> Result<Outcome> {
    output(Command::new(binary()?).args(arguments))
}

/// The embedded CA's directory, which the agents of one lab share.
pub(crate) fn ca_directory(lab: &Lab) -> PathBuf {
    lab.directory().join("ca")
}

/// The agent's binary.
///
/// # Errors
///
/// If it has not been built.
pub fn binary() -> Result<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/ambit");
    let binary = std::env::var_os(BINARY_VARIABLE).map_or(built, PathBuf::from);
    ensure!(
        binary.is_file(),
        "{} is missing; see `cargo xtask build`",
        binary.display()
    );
    Ok(binary)
}
