//! A node that lacks something: space on its disk, room in a map, a BPF file system, the right time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ambit_tests::{
    Agent, Capture, Lab, LabServer, Membership, Mode, NodeName, PinnedMap, Pod, PodSpec, Reference,
    SOON, Swarm, SwarmServer, eventually, get, get_from, output_within, run_tests, slowness, tests,
};
use anyhow::{Context, Result, ensure};
use nix::sys::stat::Mode as FileMode;
use nix::unistd::mkfifo;
use serde_json::json;

const PORT: u16 = Reference::PORT;

fn main() -> ExitCode {
    run_tests(tests![
        a_full_disk_keeps_an_agent_from_starting_and_says_so,
        a_flood_of_denials_hides_nothing_and_writes_little,
        a_flood_of_denials_that_are_not_read_takes_no_memory,
        a_log_that_cannot_be_written_does_no_harm,
        a_log_that_is_not_read_does_no_harm,
        a_node_without_a_bpf_file_system,
        a_full_table_of_pods_keeps_new_ones_out_and_old_ones_safe,
        full_tables_of_policies_close_pods_that_need_a_new_set,
        a_full_table_of_destinations_lets_no_call_leave_in_plaintext,
        a_full_table_of_handshakes_refuses_its_pods_calls,
        a_clock_that_jumps_on_both_nodes,
        a_clock_that_is_wrong_on_one_node,
    ])
}

/// The reference example, with a server in `orders`, which `frontend` may call.
struct Scene<'a> {
    lab: &'a Lab,
    mesh: Reference,
    server: LabServer,
}

impl<'a> Scene<'a> {
    fn build(lab: &'a Lab) -> Result<Self> {
        let mesh = Reference::build(lab)?;
        let server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
        Ok(Self { lab, mesh, server })
    }

    fn start(lab: &'a Lab) -> Result<(Self, [Agent; 2])> {
        let scene = Self::build(lab)?;
        let agents = lab.start_agents()?;
        scene.ensure_served()?;
        Ok((scene, agents))
    }

    fn call(&self, path: &str) -> Result<ambit_tests::Reply> {
        let url = format!("http://{}/{path}", self.mesh.orders.at(PORT));
        get(self.mesh.frontend.place(), &url)
    }

    fn ensure_served(&self) -> Result<()> {
        eventually(SOON, "frontend is answered", || {
            self.call("served").ok()?.is_answer().then_some(())
        })
    }

    fn ensure_refused(&self) -> Result<()> {
        eventually(SOON, "frontend is refused", || {
            self.call("refused").ok()?.is_refusal().then_some(())
        })
    }

    /// The intruder, in plaintext.
    fn ensure_closed(&self) -> Result<()> {
        let known = self.server.connections().len();
        let reply = get_from(self.mesh.intruder.place(), self.mesh.orders.at(PORT))?;
        ensure!(!reply.is_answer(), "the intruder: {reply:?}");
        ensure!(self.server.connections().len() == known, "it got in");
        Ok(())
    }

    /// A pod of node B with a server, whose object is not written yet.
    fn guest(&self) -> Result<(Pod, LabServer)> {
        self.lab
            .manifests()
            .write_namespace("guests", Membership::Ambient)?;
        let spec = PodSpec {
            namespace: "guests",
            ..PodSpec::named("guest")
        };
        let guest = self.lab.add_pod(NodeName::B, spec)?;
        let server = LabServer::in_pod(self.lab, &guest, Mode::Http, PORT)?;
        Ok((guest, server))
    }
}

/// Waits until what an agent shows about a pod contains this.
fn shown(agent: &Agent, pod: &str, part: &str) -> Result<()> {
    eventually(SOON, part, || {
        let workloads = agent.ask("workloads").ok()?;
        let own = workloads
            .as_array()?
            .iter()
            .find(|workload| workload["pod"] == pod)?;
        own.to_string().contains(part).then_some(())
    })
    .with_context(|| format!("{pod}: {:?}", agent.ask("workloads")))
}

fn a_full_disk_keeps_an_agent_from_starting_and_says_so(lab: &Lab) -> Result<()> {
    let scene = Scene::build(lab)?;
    let ca = lab.directory().join("ca");
    fs::create_dir(&ca)?;
    let full = format!(
        "mount -t tmpfs -o size=4k none {0} && chmod 700 {0} && exec \"$0\" \"$@\"",
        ca.display()
    );
    let by = ["unshare", "--mount", "sh", "-c", &full];
    let (status, log) = lab.launch_agent_by(NodeName::B, &by)?.end()?;
    let named = log.contains(&ca.display().to_string()) && log.contains("No space left");
    ensure!(!status.success() && named, "{log}");
    // The agent noticed the full disk after the kernel had its programs.
    let pins = lab.pins(NodeName::B);
    ensure!(!pins.exists(), "{} was left", pins.display());
    let _agents = lab.start_agents()?;
    scene.ensure_served()?;
    scene.ensure_closed()
}

/// The number of requests of a flood: more than are ever kept.
const FLOOD: usize = 1500;

/// How long their paths are, in bytes: almost as long as a head may be.
const LONG_PATH: usize = 59_000;

/// The most bytes that a flood of denials may make the agent hold or write; its paths are 88 MB.
const LITTLE: u64 = 32 << 20;

/// Sends requests with long paths over one connection, and counts those that are answered 403.
const FLOODER: &str = "
import socket, sys
host, port, count, length = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
denied, reader = 0, None
for number in range(count):
    if reader is None:
        link = socket.create_connection((host, port), 20)
        reader = link.makefile('rb')
    path = '/denied/%d/' % number + 'x' * length
    link.sendall(b'GET ' + path.encode() + b' HTTP/1.1\\r\\nHost: orders\\r\\n\\r\\n')
    denied += b' 403 ' in reader.readline()
    body, closes = 0, False
    for line in iter(reader.readline, b'\\r\\n'):
        name, _, value = line.decode().partition(':')
        if name.lower() == 'content-length':
            body = int(value)
        closes |= name.lower() == 'connection' and 'close' in value
    reader.read(body)
    if closes:
        reader = None
print(denied)
";

impl Scene<'_> {
    /// Denies everything at `guest`, and some paths at `orders`.
    fn deny(&self) -> Result<()> {
        self.lab.manifests().write(
            "denials.yaml",
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {name: nothing, namespace: guests}\nspec: {}\n---\n\
             apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {name: some-paths, namespace: orders}\n\
             spec: {action: DENY, rules: [{to: [{operation: {paths: [/denied/*]}}]}]}\n",
        )?;
        eventually(SOON, "a denied path", || {
            let reply = self.call("denied/first").ok()?;
            reply.is_denial().then_some(())
        })
    }

    fn flood(&self) -> Result<()> {
        let orders = self.mesh.orders.at(PORT);
        let mut command = self.mesh.frontend.command("python3")?;
        command.args(["-c", FLOODER, &orders.ip().to_string()]);
        command.args([
            orders.port().to_string(),
            FLOOD.to_string(),
            LONG_PATH.to_string(),
        ]);
        let outcome = output_within(Duration::from_secs(120) * slowness(), &mut command)?;
        ensure!(outcome.stdout.trim() == FLOOD.to_string(), "{outcome:?}");
        Ok(())
    }

    /// Makes `guest` deny `frontend`.
    fn ensure_denied_at(&self, guest: &Pod) -> Result<()> {
        eventually(SOON, "a denial at the guest", || {
            let reply = get_from(self.mesh.frontend.place(), guest.at(PORT)).ok()?;
            reply.is_refusal().then_some(())
        })
    }
}

/// Whether an agent still lists that `frontend` was denied at the guest.
fn ensure_listed(agent: &Agent) -> Result<()> {
    let events = agent.ask("events")?;
    let mut all = events.as_array().into_iter().flatten();
    let is_listed = all.any(|event| {
        event["pod"] == "guests/guest"
            && event["kind"] == "denial"
            && event["identity"] == "cluster.local/ns/frontend/sa/default"
    });
    ensure!(is_listed, "{events}");
    Ok(())
}

fn a_flood_of_denials_hides_nothing_and_writes_little(lab: &Lab) -> Result<()> {
    let (scene, [_agent_a, agent_b]) = Scene::start(lab)?;
    let (guest, _server) = scene.guest()?;
    lab.manifests().write_pod(&guest)?;
    shown(&agent_b, "guests/guest", "\"served\"")?;
    scene.deny()?;
    scene.ensure_denied_at(&guest)?;
    ensure_listed(&agent_b)?;
    let before = agent_b.log().len() as u64;
    scene.flood()?;
    let written = agent_b.log().len() as u64 - before;
    ensure!(written < LITTLE / 16, "{written} bytes were logged");
    ensure_listed(&agent_b)?;
    let left_out = eventually(SOON, "lines that say what was left out", || {
        let log = agent_b.log();
        log.contains("were left out to limit their number")
            .then_some(log)
    })?;
    ensure!(left_out.contains("…(+"), "no mark of what was cut");
    let losses = &agent_b.ask("status")?["events"];
    let count = losses["left_out_of_log"].as_u64();
    ensure!(count > Some(0), "{losses}");
    let line = format!("ambit_log_lines_left_out_total{{}} {}", count.unwrap_or(0));
    let metrics = agent_b.metrics()?;
    ensure!(
        metrics.lines().any(|own| own == line),
        "no {line}: {metrics}"
    );
    scene.ensure_served()
}

fn a_flood_of_denials_that_are_not_read_takes_no_memory(lab: &Lab) -> Result<()> {
    let scene = Scene::build(lab)?;
    let pipe = lab.directory().join("pipe");
    mkfifo(&pipe, FileMode::S_IRWXU)?;
    // Open at both ends, so that writers do not wait for a reader.
    let _reader = File::options().read(true).write(true).open(&pipe)?;
    let script = format!("exec \"$0\" \"$@\" >{} 2>&1", pipe.display());
    let mut agent = lab.launch_agent_by(NodeName::B, &["sh", "-c", &script])?;
    lab.wait_until_serving(&mut agent)?;
    let _peer = lab.start_agent(NodeName::A)?;
    scene.ensure_served()?;
    scene.deny()?;
    let before = agent.resident()?;
    scene.flood()?;
    let grown = agent.resident()?.saturating_sub(before);
    ensure!(grown < LITTLE, "{grown} bytes are held");
    scene.ensure_served()
}

fn a_log_that_cannot_be_written_does_no_harm(lab: &Lab) -> Result<()> {
    let scene = Scene::build(lab)?;
    let silenced = ["sh", "-c", "exec \"$0\" \"$@\" >/dev/full 2>&1"];
    let [a, b] = NodeName::ALL;
    let mut agents = [
        lab.launch_agent_by(a, &silenced)?,
        lab.launch_agent_by(b, &silenced)?,
    ];
    for agent in &mut agents {
        lab.wait_until_serving(agent)?;
    }
    scene.ensure_served()?;
    scene.ensure_closed()
}

fn a_log_that_is_not_read_does_no_harm(lab: &Lab) -> Result<()> {
    let long_enough = Duration::from_secs(5) * slowness();
    let scene = Scene::build(lab)?;
    let pipe = lab.directory().join("pipe");
    mkfifo(&pipe, FileMode::S_IRWXU)?;
    // Open at both ends, so that writers do not wait for a reader.
    let _reader = File::options().read(true).write(true).open(&pipe)?;
    let script = format!("exec \"$0\" \"$@\" >{} 2>&1", pipe.display());
    let mut agent = lab.launch_agent_by(NodeName::B, &["sh", "-c", &script])?;
    lab.wait_until_serving(&mut agent)?;
    let _peer = lab.start_agent(NodeName::A)?;
    let (swarm_port, orders) = (9000, &scene.mesh.orders);
    let _server = SwarmServer::start(lab, orders.place(), orders.at(swarm_port))?;
    let frontend = scene.mesh.frontend.place();
    let mut swarm = Swarm::churn(lab, frontend, orders.at(swarm_port), long_enough)?;
    let (answered, refused) = swarm.outcome()?;
    ensure!(
        answered > 300 && refused == 0,
        "{answered} answered, {refused} refused"
    );
    scene.ensure_served()?;
    scene.ensure_closed()
}

fn a_node_without_a_bpf_file_system(lab: &Lab) -> Result<()> {
    let scene = Scene::build(lab)?;
    let unmounted = "umount --recursive --lazy /sys/fs/bpf; exec \"$0\" \"$@\"";
    let container = [
        "unshare", "--mount", "--pid", "--fork", "sh", "-c", unmounted,
    ];
    let (status, log) = lab.launch_agent_by(NodeName::B, &container)?.end()?;
    let explained = log.contains("/sys/fs/bpf") && log.contains("hostPath");
    ensure!(!status.success() && explained, "{log}");
    let _agents = lab.start_agents()?;
    scene.ensure_served()
}

fn a_full_table_of_pods_keeps_new_ones_out_and_old_ones_safe(lab: &Lab) -> Result<()> {
    let (scene, [_agent_a, agent_b]) = Scene::start(lab)?;
    let (guest, server) = scene.guest()?;
    let pods = &PinnedMap::named(lab, NodeName::B, "PODS")?[0];
    pods.fill()?;
    lab.manifests().write_pod(&guest)?;
    shown(&agent_b, "guests/guest", "PODS")?;
    // No one reaches a pod that cannot be served, or bypasses the policies of others.
    let reply = get_from(scene.mesh.intruder.place(), guest.at(PORT))?;
    ensure!(
        !reply.is_answer() && server.connections().is_empty(),
        "{reply:?}"
    );
    scene.ensure_closed()?;
    scene.ensure_served()?;
    pods.empty()?;
    shown(&agent_b, "guests/guest", "\"served\"")?;
    eventually(SOON, "the guest's answer", || {
        get_from(scene.mesh.frontend.place(), guest.at(PORT))
            .ok()?
            .is_answer()
            .then_some(())
    })
}

fn full_tables_of_policies_close_pods_that_need_a_new_set(lab: &Lab) -> Result<()> {
    let (scene, [_agent_a, agent_b]) = Scene::start(lab)?;
    for (turn, name) in ["POLICY_SETS", "IDENTITY_BITS", "PORT_BITS"]
        .into_iter()
        .enumerate()
    {
        let mut ports = (9000 + 1000 * turn..).map(policy);
        // The agent sweeps out unknown entries: sometimes it is faster.
        let table = eventually(SOON, name, || {
            let table = PinnedMap::named(lab, NodeName::B, name).ok()?.remove(0);
            table.fill().ok()?;
            lab.manifests().write("more.yaml", &ports.next()?).ok()?;
            let met = eventually(BRIEFLY, name, || agent_b.log().contains(name).then_some(()));
            match met {
                Ok(()) => Some(table),
                Err(_) => table.empty().ok().and(None),
            }
        })?;
        scene.ensure_closed()?;
        table.empty()?;
        scene.ensure_served()?;
        scene.ensure_closed()?;
    }
    Ok(())
}

fn a_full_table_of_destinations_lets_no_call_leave_in_plaintext(lab: &Lab) -> Result<()> {
    let (scene, [agent_a, _agent_b]) = Scene::start(lab)?;
    let permissive = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                      metadata: {name: default, namespace: guests}\n\
                      spec: {mtls: {mode: PERMISSIVE}}\n";
    lab.manifests().write("permissive.yaml", permissive)?;
    let (guest, _server) = scene.guest()?;
    lab.manifests()
        .write_namespace("guests", Membership::None)?;
    lab.manifests().write_pod(&guest)?;
    let call = |path: &str| {
        let url = format!("http://{}/{path}", guest.at(PORT));
        get(scene.mesh.frontend.place(), &url)
    };
    let counts = || Some(agent_a.ask("status").ok()?["kernel"].clone());
    eventually(SOON, "an answer in plaintext, past the proxy", || {
        let answered = call("public").ok()?.is_answer();
        let passed = counts()?["outbound_not_opted_in"].as_u64() > Some(0);
        (answered && passed).then_some(())
    })?;

    let destinations = &PinnedMap::named(lab, NodeName::A, "MESH")?[0];
    destinations.fill()?;
    let capture = Capture::start(lab)?;
    lab.manifests()
        .write("namespace-guests.yaml", &opted_in_with_a_crowd())?;
    let status = eventually(SOON, "a fault", || {
        let status = agent_a.ask("status").ok()?;
        let faults = status["faults"].to_string();
        faults.contains("table of destinations").then_some(status)
    })?;
    eventually(SOON, "an answer through a tunnel", || {
        call("secret").ok()?.is_answer().then_some(())
    })?;
    let in_plaintext = capture.finish()?.contains(b"GET /secret");
    ensure!(!in_plaintext, "the call left in plaintext: {status}");
    ensure!(status["ready"] == false, "it counts as ready: {status}");
    scene.ensure_served()?;
    scene.ensure_closed()?;

    destinations.empty()?;
    eventually(SOON, "no fault", || {
        let status = agent_a.ask("status").ok()?;
        (status["faults"] == json!([]) && status["ready"] == true).then_some(())
    })
}

/// The guests' namespace, opted in, and more pods that are not than a full table takes.
fn opted_in_with_a_crowd() -> String {
    let mut text = "apiVersion: v1\nkind: Namespace\n\
                    metadata: {name: guests, labels: {istio.io/dataplane-mode: ambient}}\n\
                    ---\napiVersion: v1\nkind: Namespace\nmetadata: {name: crowd}\n"
        .to_owned();
    for host in 190..250 {
        text += &format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: one-{host}, namespace: crowd}}\n\
             spec: {{nodeName: node-c, serviceAccountName: default, containers: [{{name: one, image: one}}]}}\n\
             status: {{phase: Running, podIP: 10.78.1.{host}, podIPs: [{{ip: 10.78.1.{host}}}]}}\n"
        );
    }
    text
}

/// Longer than the agent takes to follow a changed file.
const BRIEFLY: Duration = Duration::from_secs(2);

/// One more policy for `orders`.
fn policy(port: usize) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: more, namespace: orders}}\n\
         spec: {{rules: [{{to: [{{operation: {{ports: [\"{port}\"]}}}}]}}]}}\n"
    )
}

fn a_full_table_of_handshakes_refuses_its_pods_calls(lab: &Lab) -> Result<()> {
    let (scene, [agent_a, _agent_b]) = Scene::start(lab)?;
    let tables = PinnedMap::named(lab, NodeName::A, "HANDSHAKES")?;
    let capture = Capture::start(lab)?;
    for table in &tables {
        table.fill()?;
    }
    let reply = scene.call("secret")?;
    ensure!(reply.is_refusal(), "{reply:?}");
    scene.ensure_closed()?;
    let counts = &agent_a.ask("status")?["kernel"];
    let lost = counts["handshake_record_lost"].as_u64();
    ensure!(lost > Some(0), "{counts}");
    ensure!(!capture.finish()?.contains(b"GET /secret"));
    for table in &tables {
        table.empty()?;
    }
    scene.ensure_served()
}

/// A clock for agents, which can be set: libfaketime reads it from a file.
struct Clock(PathBuf);

impl Clock {
    fn new(lab: &Lab, name: &str) -> Result<Self> {
        let clock = Self(lab.directory().join(name));
        clock.set("+0")?;
        Ok(clock)
    }

    fn set(&self, offset: &str) -> Result<()> {
        let whole = self.0.with_extension("new");
        fs::write(&whole, offset)?;
        Ok(fs::rename(whole, &self.0)?)
    }

    /// Starts an agent with this clock; its monotonic clock stays right.
    fn start_agent(&self, lab: &Lab, node: NodeName) -> Result<Agent> {
        let preload = format!("LD_PRELOAD={}", libfaketime()?.display());
        let file = format!("FAKETIME_TIMESTAMP_FILE={}", self.0.display());
        let by = [
            "env",
            &preload,
            &file,
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
            "DONT_FAKE_MONOTONIC=1",
        ];
        let mut agent = lab.launch_agent_by(node, &by)?;
        lab.wait_until_serving(&mut agent)?;
        Ok(agent)
    }
}

fn libfaketime() -> Result<PathBuf> {
    for architecture in fs::read_dir("/usr/lib")? {
        let library = architecture?.path().join("faketime/libfaketimeMT.so.1");
        if Path::new(&library).exists() {
            return Ok(library);
        }
    }
    anyhow::bail!("libfaketime is missing; see `cargo xtask setup`")
}

fn a_clock_that_jumps_on_both_nodes(lab: &Lab) -> Result<()> {
    let scene = Scene::build(lab)?;
    let clock = Clock::new(lab, "clock")?;
    let [a, b] = NodeName::ALL;
    let agents = [clock.start_agent(lab, a)?, clock.start_agent(lab, b)?];
    scene.ensure_served()?;
    for days in [3, 1, 400] {
        let offset = &format!("+{days}d");
        clock.set(offset)?;
        for agent in &agents {
            eventually(SOON, "certificates of that time", || are_valid(agent, days))?;
        }
        scene.ensure_served().with_context(|| offset.clone())?;
        scene.ensure_closed()?;
    }
    Ok(())
}

/// Whether all certificates of an agent will be valid in this many days.
fn are_valid(agent: &Agent, days: u64) -> Option<()> {
    let then = SystemTime::now() + Duration::from_secs(days * 24 * 3600);
    let then = then.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let certificates = agent.ask("certs").ok()?;
    let mut ends = certificates
        .as_array()?
        .iter()
        .map(|one| one["not_after"].as_u64());
    ends.all(|end| end > Some(then)).then_some(())
}

fn a_clock_that_is_wrong_on_one_node(lab: &Lab) -> Result<()> {
    let scene = Scene::build(lab)?;
    let clock = Clock::new(lab, "clock")?;
    let [a, b] = NodeName::ALL;
    let mut agents = [lab.start_agent(a)?, clock.start_agent(lab, b)?];
    scene.ensure_served()?;
    let capture = Capture::start(lab)?;
    for offset in ["+3d", "-3d"] {
        clock.set(offset)?;
        // Without the open tunnel.
        let [caller, called] = agents;
        caller.kill()?;
        agents = [lab.start_agent(a)?, called];
        scene.ensure_refused().with_context(|| offset)?;
        scene.ensure_closed()?;
        clock.set("+0")?;
        scene
            .ensure_served()
            .with_context(|| format!("after {offset}"))?;
    }
    ensure!(agents.iter().all(|agent| agent.ask("status").is_ok()));
    ensure!(!capture.finish()?.contains(b"GET /"));
    Ok(())
}
