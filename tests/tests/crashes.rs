//! An agent that is killed at any call to the kernel, at its start, while it enrols or releases a pod
//! and while it changes a policy: nothing opens, and the next agent completes the work.

use std::process::ExitCode;

use ambit_tests::{
    Agent, Capture, Crash, Lab, LabServer, Membership, Mode, NodeName, Pod, PodSpec, Reference,
    Reply, SOON, eventually, get, get_from, run_tests, tests,
};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

const PORT: u16 = Reference::PORT;

fn main() -> ExitCode {
    run_tests(tests![
        killed_at_any_step_of_its_start,
        killed_at_any_step_of_a_change_of_policy,
        killed_at_any_step_of_taking_in_a_pod,
    ])
}

/// The reference example, with a server in `orders`, whose agent is the one that is killed.
struct Scene<'a> {
    lab: &'a Lab,
    mesh: Reference,
    server: LabServer,
    _peer: Agent,
}

/// The result of killing an agent at a step.
enum Fate {
    Killed,
    /// It has finished in fewer steps.
    Done(Agent),
}

impl<'a> Scene<'a> {
    fn start(lab: &'a Lab) -> Result<(Self, Agent)> {
        let (mesh, [peer, agent]) = Reference::start(lab)?;
        let server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
        let scene = Self {
            lab,
            mesh,
            server,
            _peer: peer,
        };
        Ok((scene, agent))
    }

    fn again(&self) -> Result<Agent> {
        self.lab.start_agent(NodeName::B)
    }

    fn call(&self, from: &Pod, path: &str) -> Result<Reply> {
        get(
            from.place(),
            &format!("http://{}/{path}", self.mesh.orders.at(PORT)),
        )
    }

    fn ensure_refused(&self, from: &Pod) -> Result<()> {
        let known = self.server.connections().len();
        let reply = self.call(from, "refused")?;
        ensure!(!reply.is_answer(), "{}: {reply:?}", from.name());
        ensure!(
            self.server.connections().len() == known,
            "{} got in",
            from.name()
        );
        Ok(())
    }

    fn ensure_answered(&self, from: &Pod) -> Result<()> {
        eventually(SOON, "an answer", || {
            self.call(from, "answered").ok()?.is_answer().then_some(())
        })
        .with_context(|| from.name())
    }

    /// No one gets in while no agent runs.
    fn ensure_closed(&self) -> Result<()> {
        let Reference {
            frontend,
            payments,
            intruder,
            ..
        } = &self.mesh;
        [frontend, payments, intruder]
            .into_iter()
            .try_for_each(|pod| self.ensure_refused(pod))
    }

    /// Makes the agent do something, and kills it at the `step`-th bpf(2).
    fn kill_at(
        &self,
        mut agent: Agent,
        step: u32,
        act: impl FnOnce(&Agent) -> Result<()>,
        is_done: impl Fn(&Agent) -> Option<()>,
    ) -> Result<Fate> {
        let crash = Crash::at_bpf_call(self.lab, &agent, step)?;
        act(&agent)?;
        eventually(SOON, "the agent's end or its success", || {
            (!agent.is_running() || is_done(&agent).is_some()).then_some(())
        })?;
        if !agent.is_running() {
            return Ok(Fate::Killed);
        }
        crash.call_off()?;
        Ok(Fate::Done(agent))
    }
}

/// The steps at which the agent is killed: each of the first ones, then fewer, because the later ones
/// are alike, one map entry after another.
fn steps() -> impl Iterator<Item = u32> {
    (1..20).chain((20..).step_by(7))
}

fn killed_at_any_step_of_its_start(lab: &Lab) -> Result<()> {
    let (scene, agent) = Scene::start(lab)?;
    let capture = Capture::start(lab)?;
    agent.kill()?;
    let mut killed = 0;
    for step in steps() {
        let agent = lab.launch_stopped_agent(NodeName::B)?;
        let go_on = |agent: &Agent| agent.signal(Signal::SIGCONT);
        let is_ready = |agent: &Agent| {
            let status = agent.ask("status").ok()?;
            (status["ready"] == true).then_some(())
        };
        match scene.kill_at(agent, step, go_on, is_ready)? {
            Fate::Killed => killed += 1,
            Fate::Done(_agent) => break,
        }
        scene
            .ensure_closed()
            .with_context(|| format!("at step {step}"))?;
    }
    println!("start: {killed} steps");
    ensure!(killed > 20, "it was killed {killed} times only");
    ensure!(!capture.finish()?.contains(b"GET /answered"));
    let _agent = scene.again()?;
    scene.ensure_answered(&scene.mesh.frontend)?;
    scene.ensure_refused(&scene.mesh.intruder)
}

/// Lets only one pod call `orders`.
fn policy(pod: &Pod) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: one, namespace: orders}}\n\
         spec: {{rules: [{{from: [{{source: {{namespaces: [{}]}}}}]}}]}}\n",
        pod.namespace()
    )
}

fn killed_at_any_step_of_a_change_of_policy(lab: &Lab) -> Result<()> {
    let (scene, mut agent) = Scene::start(lab)?;
    lab.manifests().write("policies.yaml", STRICT)?;
    let pods = [&scene.mesh.frontend, &scene.mesh.payments];
    let mut turns = (0..).map(|turn| [pods[turn % 2], pods[(turn + 1) % 2]]);
    let mut killed = 0;
    for step in steps() {
        let [allowed, denied] = turns.next().context("turns end")?;
        let change = |_: &Agent| lab.manifests().write("one.yaml", &policy(allowed));
        let is_in_force = |_: &Agent| {
            let reply = scene.call(allowed, "asked").ok()?;
            reply.is_answer().then_some(())
        };
        match scene.kill_at(agent, step, change, is_in_force)? {
            Fate::Killed => killed += 1,
            Fate::Done(_agent) => {
                scene.ensure_refused(denied)?;
                break;
            }
        }
        scene
            .ensure_closed()
            .with_context(|| format!("at step {step}"))?;
        agent = scene.again()?;
        scene
            .ensure_refused(denied)
            .with_context(|| format!("after step {step}"))?;
        scene.ensure_refused(&scene.mesh.intruder)?;
        scene.ensure_answered(allowed)?;
    }
    println!("policy: {killed} steps");
    ensure!(killed > 5, "it was killed {killed} times only");
    Ok(())
}

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
";

fn killed_at_any_step_of_taking_in_a_pod(lab: &Lab) -> Result<()> {
    let (scene, mut agent) = Scene::start(lab)?;
    lab.manifests()
        .write_namespace("guests", Membership::Ambient)?;
    let spec = PodSpec {
        namespace: "guests",
        ..PodSpec::named("guest")
    };
    let guest = lab.add_pod(NodeName::B, spec)?;
    let _server = LabServer::in_pod(lab, &guest, Mode::Http, PORT)?;
    let mut killed = 0;
    for step in steps() {
        let enter = |_: &Agent| lab.manifests().write_pod(&guest);
        let is_served = |agent: &Agent| is_served(agent, &guest);
        match scene.kill_at(agent, step, enter, is_served)? {
            Fate::Killed => killed += 1,
            Fate::Done(_agent) => break,
        }
        scene
            .ensure_closed()
            .with_context(|| format!("at step {step}"))?;
        // Once it is closed, it stays closed.
        let intrudes = || get_from(scene.mesh.intruder.place(), guest.at(PORT));
        let was_closed = !intrudes()?.is_answer();
        let mut next = lab.launch_agent(NodeName::B)?;
        while was_closed && is_served(&next).is_none() {
            let reply = intrudes()?;
            ensure!(
                !reply.is_answer(),
                "opened again after step {step}: {reply:?}"
            );
        }
        lab.wait_until_serving(&mut next)?;
        let reply = intrudes()?;
        ensure!(!reply.is_answer(), "after step {step}: {reply:?}");
        // Without an object it would stay closed.
        lab.manifests()
            .write_namespace("guests", Membership::None)?;
        eventually(SOON, "the pod having left", || {
            intrudes().ok()?.is_answer().then_some(())
        })?;
        lab.manifests().remove(&guest.file_name())?;
        lab.manifests()
            .write_namespace("guests", Membership::Ambient)?;
        agent = next;
    }
    println!("pod: {killed} steps");
    ensure!(killed > 5, "it was killed {killed} times only");
    Ok(())
}

fn is_served(agent: &Agent, pod: &Pod) -> Option<()> {
    let name = format!("{}/{}", pod.namespace(), pod.name());
    let workloads = agent.ask("workloads").ok()?;
    let own = workloads
        .as_array()?
        .iter()
        .find(|workload| workload["pod"] == name.as_str())?;
    (own["state"] == "served").then_some(())
}
