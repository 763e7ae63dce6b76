//! Crashes, freezes, cut links and wrong environments: none of them lets plaintext onto the link or an
//! intruder in, and the mesh recovers without help.

use std::fs;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use ambit_tests::{
    Agent, Capture, HeldConnection, Lab, LabServer, Mode, NodeName, Place, Reference, SOON,
    eventually, get, get_from, run_tests, tests,
};
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

const PORT: u16 = Reference::PORT;

fn main() -> ExitCode {
    run_tests(tests![
        an_agent_killed_at_any_moment_of_its_start_opens_nothing,
        a_start_that_fails_leaves_nothing_behind,
        an_agent_that_is_told_to_end_leaves_its_pods_closed,
        a_second_agent_on_a_node_refuses,
        an_agent_of_another_version_refuses,
        an_agent_without_its_state_refuses,
        a_vanished_configuration_stays_in_force,
        a_frozen_peer_delays_no_others_and_recovers,
        a_cut_link_heals,
    ])
}

/// The reference example, with a server in `orders`, which `frontend` may call, and one in
/// `payments`, on the other node, which it may not.
struct Scene {
    mesh: Reference,
    server: LabServer,
}

impl Scene {
    fn build(lab: &Lab) -> Result<Self> {
        let mesh = Reference::build(lab)?;
        let server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
        Ok(Self { mesh, server })
    }

    fn start(lab: &Lab) -> Result<(Self, [Agent; 2])> {
        let scene = Self::build(lab)?;
        let agents = lab.start_agents()?;
        scene.ensure_served()?;
        Ok((scene, agents))
    }

    fn frontend(&self) -> &Place {
        self.mesh.frontend.place()
    }

    fn call(&self, path: &str) -> Result<ambit_tests::Reply> {
        let url = format!("http://{}/{path}", self.mesh.orders.at(PORT));
        get(self.frontend(), &url)
    }

    fn ensure_served(&self) -> Result<()> {
        eventually(SOON, "frontend is answered", || {
            self.call("served").ok()?.is_answer().then_some(())
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
}

fn an_agent_killed_at_any_moment_of_its_start_opens_nothing(lab: &Lab) -> Result<()> {
    const MOMENTS: u32 = 24;
    const APART: Duration = Duration::from_millis(25);
    let (scene, [agent_a, agent_b]) = Scene::start(lab)?;
    let capture = Capture::start(lab)?;
    agent_a.kill()?;
    agent_b.kill()?;
    for moment in 0..MOMENTS {
        for node in NodeName::ALL {
            let agent = lab.launch_agent(node)?;
            sleep(APART * moment);
            agent.kill()?;
        }
        scene.ensure_closed()?;
        let reply = scene.call("secret")?;
        ensure!(!reply.is_answer(), "after {moment} steps: {reply:?}");
    }
    ensure!(!capture.finish()?.contains(b"GET /secret"));
    let _agents = lab.start_agents()?;
    scene.ensure_served()
}

fn a_start_that_fails_leaves_nothing_behind(lab: &Lab) -> Result<()> {
    let scene = Scene::build(lab)?;
    let config = lab.manifests().directory().to_owned();
    let away = config.with_extension("away");
    let with = |more: &str| format!("exec \"$0\" \"$@\" {more}");
    let ensure_refused = |script: &str, words: &str| -> Result<()> {
        let (status, log) = lab
            .launch_agent_by(NodeName::B, &["sh", "-c", script])?
            .end()?;
        ensure!(!status.success() && log.contains(words), "{words}: {log}");
        let own = lab.directory().join(NodeName::B.as_str());
        for made in [
            lab.pins(NodeName::B),
            lab.directory().join("ca"),
            own.join("admin.sock"),
        ] {
            ensure!(!made.exists(), "{words}: {} was left", made.display());
        }
        Ok(())
    };
    fs::rename(&config, &away)?;
    ensure_refused(&with(""), &config.display().to_string())?;
    fs::rename(&away, &config)?;
    ensure_refused(
        &with("--jwks-ca /nonexistent/roots.pem"),
        "/nonexistent/roots.pem",
    )?;
    // Only the kernel shows that it is outside the cgroup to which it has attached its programs.
    let outside = "root=$(awk '$3 == \"cgroup2\" {print $2; exit}' /proc/mounts) && \
                   echo 0 >\"$root/cgroup.procs\" && exec \"$0\" \"$@\"";
    ensure_refused(outside, "--cgroup")?;
    let _agents = lab.start_agents()?;
    scene.ensure_served()?;
    scene.ensure_closed()
}

fn an_agent_that_is_told_to_end_leaves_its_pods_closed(lab: &Lab) -> Result<()> {
    let (scene, [_agent_a, agent_b]) = Scene::start(lab)?;
    let (status, log) = agent_b.stop()?;
    ensure!(status.success(), "{status}: {log}");
    scene.ensure_closed()?;
    let reply = scene.call("ended")?;
    ensure!(reply.is_refusal(), "{reply:?}");
    let _again = lab.start_agent(NodeName::B)?;
    scene.ensure_served()
}

fn a_second_agent_on_a_node_refuses(lab: &Lab) -> Result<()> {
    let (scene, _agents) = Scene::start(lab)?;
    let (status, log) = lab.launch_agent(NodeName::A)?.end()?;
    ensure!(!status.success() && log.contains("another agent"), "{log}");
    scene.ensure_served()?;
    scene.ensure_closed()
}

fn an_agent_of_another_version_refuses(lab: &Lab) -> Result<()> {
    let (scene, [_agent_a, agent_b]) = Scene::start(lab)?;
    agent_b.kill()?;
    let newer = lab.pins(NodeName::B).join("v9999");
    fs::create_dir(&newer)?;
    let (status, log) = lab.launch_agent(NodeName::B)?.end()?;
    ensure!(!status.success() && log.contains("v9999"), "{log}");
    scene.ensure_closed()?;
    fs::remove_dir(&newer)?;
    let _again = lab.start_agent(NodeName::B)?;
    scene.ensure_served()
}

fn an_agent_without_its_state_refuses(lab: &Lab) -> Result<()> {
    let (scene, [_agent_a, agent_b]) = Scene::start(lab)?;
    agent_b.kill()?;
    let (ca, away) = (lab.directory().join("ca"), lab.directory().join("away"));
    fs::rename(&ca, &away)?;
    // A folder that can neither be read nor made.
    fs::write(&ca, "")?;
    let (status, log) = lab.launch_agent(NodeName::B)?.end()?;
    let named = log.contains(&ca.display().to_string());
    ensure!(!status.success() && named, "{log}");
    scene.ensure_closed()?;
    fs::remove_file(&ca)?;
    fs::rename(&away, &ca)?;
    let _again = lab.start_agent(NodeName::B)?;
    scene.ensure_served()
}

fn a_vanished_configuration_stays_in_force(lab: &Lab) -> Result<()> {
    let (scene, agents) = Scene::start(lab)?;
    let config = lab.manifests().directory().to_owned();
    let away = config.with_extension("away");
    fs::rename(&config, &away)?;
    let faults = |agent: &Agent| Some(agent.ask("status").ok()?["faults"].as_array()?.len());
    for agent in &agents {
        eventually(SOON, "a report of the missing directory", || {
            (faults(agent)? > 0).then_some(())
        })?;
    }
    scene.ensure_closed()?;
    scene.ensure_served()?;
    fs::rename(&away, &config)?;
    for agent in &agents {
        eventually(SOON, "the configuration being back", || {
            (faults(agent)? == 0).then_some(())
        })?;
    }
    scene.ensure_served()
}

fn a_frozen_peer_delays_no_others_and_recovers(lab: &Lab) -> Result<()> {
    let (scene, [_agent_a, agent_b]) = Scene::start(lab)?;
    let capture = Capture::start(lab)?;
    agent_b.signal(Signal::SIGSTOP)?;
    scene.ensure_closed()?;
    let reply = scene.call("secret")?;
    ensure!(!reply.is_answer(), "{reply:?}");
    // `payments` is served by the agent that is not frozen.
    let reply = get_from(scene.frontend(), scene.mesh.payments.at(PORT))?;
    ensure!(reply.is_refusal(), "{reply:?}");
    agent_b.signal(Signal::SIGCONT)?;
    scene.ensure_served()?;
    ensure!(!capture.finish()?.contains(b"GET /secret"));
    scene.ensure_closed()
}

fn a_cut_link_heals(lab: &Lab) -> Result<()> {
    let (scene, _agents) = Scene::start(lab)?;
    let mut held = HeldConnection::open(lab, scene.frontend(), scene.mesh.orders.at(PORT))?;
    let asks = |held: &mut HeldConnection| {
        held.send("GET / HTTP/1.1\n")?;
        held.wait_for("200 OK")
    };
    // Its own node's agent has taken the connection; the answer says that the server has too.
    asks(&mut held)?;
    let node = lab.node(NodeName::A)?;
    let nft = |rules: &str| -> Result<()> {
        let outcome = ambit_tests::output(node.command("nft")?.arg(rules))?;
        ensure!(outcome.status.success(), "nft: {}", outcome.stderr);
        Ok(())
    };
    // The device stays up: no one is notified.
    nft("add table inet cut; \
         add chain inet cut in { type filter hook prerouting priority -300; }; \
         add rule inet cut in iifname link0 drop")?;
    let reply = scene.call("cut")?;
    ensure!(!reply.is_answer(), "{reply:?}");
    nft("delete table inet cut")?;
    scene.ensure_served()?;
    asks(&mut held)?;
    scene.ensure_closed()
}
